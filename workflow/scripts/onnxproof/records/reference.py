"""``reference.json`` and what lies in ``reference/``: what PyTorch answers to the evaluation inputs."""

from pathlib import Path
from typing import Any, Literal, NotRequired, TypeAlias, TypedDict

from onnxproof.files import Files, read_manifest
from onnxproof.records.common import Versions


class RecordedInputs(TypedDict):
    """The evaluation inputs; lengths only where they are texts."""

    count: int
    """How many."""
    sha256: str
    """Of ``inputs.safetensors``, in hex."""
    tokens: NotRequired[int]
    """In all of them together."""
    shortest: NotRequired[int]
    """Tokens of the shortest."""
    longest: NotRequired[int]
    """Tokens of the longest."""
    max_tokens: NotRequired[int]
    """What they were cut to."""
    max_tokens_of_model: NotRequired[int]
    """What the model takes."""


class RecordedOutput(TypedDict):
    """One output of the original over all inputs."""

    shape: list[int]
    """Rows over all inputs and features; or inputs, and the shape of the first input's output."""
    dtype: str
    """As NumPy names it."""


class Padding(TypedDict):
    """How inputs are padded into a batch."""

    side: str
    """``right`` or ``left``."""
    values: dict[str, int]
    """What each input is padded with, by its name."""
    special_tokens: dict[str, str]
    """The tokens that the tokenizer has a role for, by the role's name; empty without a tokenizer."""


class Invariance(TypedDict):
    """What the neighbours in a batch change in answers; None where a value is not finite."""

    max_abs_diff: float | None
    """The largest absolute difference."""
    cosine_min: float | None
    """The lowest cosine of any row."""


class BatchInvariance(Invariance):
    """What the neighbours in a padded batch change in a variant's answers."""

    batch_size: int
    """Inputs in a batch."""
    inputs: NotRequired[int]
    """How many inputs were compared, all where it is not said: the first batches are enough where they show no more
    than rounding."""


class OwnInvariance(Invariance):
    """What the neighbours in a padded batch change in PyTorch's own answers."""

    batch_size: int
    """Inputs in a batch."""
    inputs: int
    """How many inputs were compared."""


class ChatParts(TypedDict):
    """What a chat template makes of the first message of a user."""

    before: str
    """What comes before the message."""
    behind: str
    """What comes behind it."""
    strips: bool
    """Whether white space around the message is taken away."""


class FinalSettings(TypedDict, total=False):
    """What the programs of a model card must know of the original, and cannot read from the release's other files.

    Which keys there are follows from the use.
    """

    takes: str
    """The kind of raw inputs, such as ``texts``."""
    activation: str
    """What makes the answers of a classification head, see ``tasks.heads``."""
    pooled_by_servers: bool
    """Whether servers of embeddings, which pool by themselves, give the same vectors."""
    prompts: dict[str, str]
    """Those of a sentence-transformer, by name."""
    default_prompt: str
    """The one that comes before a text if none is named; empty for none."""
    mask_token: str
    """What stands in the place of a masked word."""
    ends: list[int]
    """The tokens that end a text."""
    first: list[int | None]
    """The tokens that a text begins with; None stands for the language that a model of speech hears."""
    rules: dict[str, Any]
    """Which token may follow: settings of ``GenerationConfig`` that the programs apply."""
    not_applied: dict[str, Any]
    """Settings of ``GenerationConfig`` that change a text and that the programs do not apply."""
    neutrals: dict[str, Any]
    """For each setting that is not applied, the value that has no effect."""
    chat: ChatParts | None
    """The chat template; None without one."""
    candidates: list[str]
    """The texts that an image is compared with."""
    threshold: float
    """The lowest probability of a detection."""
    method: str
    """The method of the image processor that makes segments."""
    patches: bool
    """Whether the image processor makes patches, and no pixel values."""
    cleans: bool
    """Whether the tokenizer removes spaces before punctuation."""
    mark: str | None
    """What stands for the image in a prompt; None where a chat template puts it there."""
    language_model: str
    """The processor that has a language model choose the words, which the programs do not."""
    unwritten: int
    """How many of the first tokens are not part of the text."""
    languages: list[int]
    """The tokens of languages, of which a model of speech picks one."""
    suppressed: list[int]
    """The tokens that are never written."""
    suppressed_first: list[int]
    """The tokens that are not written first."""
    longest: int | None
    """The most samples of a sound; None for any number."""
    most_written: int
    """The most tokens of a text."""
    arguments: dict[str, int]
    """Further arguments with which a program is asked, by name."""


class Usage(FinalSettings, total=False):
    """What the programs of a model card must know, and what the original's public interface was asked."""

    use: str
    """A key of ``USES``; absent where the card has no program that takes raw inputs."""
    interface: str
    """The interface that was asked, for readers."""
    inputs: int
    """How many raw inputs it was asked."""
    pads: bool
    """Added by the release: whether its tokenizer pads by itself."""
    max_tokens: int
    """Added by the release: what texts are cut to."""


class MeasuredReference(TypedDict):
    """What a measurement must know of a reference."""

    task: str
    """A key of ``TASKS``."""
    judged_as: str
    """The task whose metrics compare the answers."""
    label_count: int
    """How many labels a head has."""
    padding: Padding
    """How the inputs are padded."""


class ReferenceRecord(MeasuredReference):
    """What PyTorch answers to the evaluation inputs, ``results/{model}/reference/``."""

    model: str
    """The model's name in config.yaml."""
    reference: Literal["pytorch"]
    """Who answered."""
    inputs: RecordedInputs
    """What it was asked."""
    outputs: dict[str, RecordedOutput]
    """Its outputs by name."""
    labels: dict[str, str] | None
    """The names of the labels by their numbers, as in config.json."""
    batch_invariance: OwnInvariance
    """What a batch changes in its answers."""
    usage: Usage
    """What a model card must know."""
    threads: int
    """Threads of PyTorch."""
    files: Files
    """Those of the folder."""
    versions: Versions
    """Of the libraries that took part."""


class FinalRecord(TypedDict):
    """Raw inputs, and what the original's public interface answers to each of them alone.

    An array is ``{"array": name}``, after its name in ``final.safetensors`` or ``golden.npz``.
    """

    use: str
    """A key of ``USES``."""
    interface: str
    """The interface that was asked, for readers."""
    settings: FinalSettings
    """What the programs of a card must know."""
    inputs: list[Any]
    """Of the kind that the use takes, see ``FinalAnswers``."""
    answers: list[Any]
    """Of the kind that the use gives, one for each input."""


#: ``generated.json``: the tokens that PyTorch generates after some of the inputs, by the input's number.
Generated: TypeAlias = dict[str, list[int]]
#: ``texts.json``: what each input was made from: a text, a pair of texts, or the pairs of a choice.
RecordedTexts: TypeAlias = list[str | list[str] | list[list[str]]]


def read_reference_record(path: Path) -> ReferenceRecord:
    """Read a ``reference.json``.

    Raises:
        UserError: see ``read_manifest``.
    """
    record: ReferenceRecord = read_manifest(path)
    return record
