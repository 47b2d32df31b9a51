"""What stands beside the graphs, held to the original's: tokenizer, length, labels, pooling, licence."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from onnxproof.audit.repository import finding, read_card
from onnxproof.checkpoint.problem import ProblemError
from onnxproof.checkpoint.reading import TOKENIZER_CONFIG, Checkpoint
from onnxproof.checkpoint.sentence import pooling_modes
from onnxproof.checkpoint.text_limits import most_tokens, text_settings
from onnxproof.checkpoint.tokenizer_files import TOKENIZER_FILE
from onnxproof.checkpoint.untrusted import shortened
from onnxproof.cli import first_line
from onnxproof.inputs.model_inputs import MASKED_POSITIONS, TOKENS, Reference
from onnxproof.inputs.prompts import PROMPT_TOKENS, prompt_limit
from onnxproof.records.audit import Finding
from onnxproof.records.reference import ReferenceRecord
from onnxproof.tasks.heads import CLASSIFYING_TASKS
from onnxproof.tasks.registry import GENERATING_TASKS

#: Keys of tokenizer_config.json that change how transformers cuts a text.
CUTTING_KEYS = ("do_lower_case", "strip_accents", "tokenize_chinese_chars", "add_bos_token", "add_eos_token")
#: Tasks whose answers are labels of ``config.json``.
LABELLED_TASKS = CLASSIFYING_TASKS | {"token-classification", "object-detection", "semantic-segmentation"}


def look_beside(
    folder: Path, repository: Checkpoint, original: Checkpoint, reference: Reference[ReferenceRecord]
) -> Iterator[Finding]:
    """Yield what is wrong with the files of a repository that are no graphs.

    Args:
        folder: the repository.
        repository: its small files.
        original: those of the original.
        reference: what was recorded of the original.
    """
    yield from _look_at_licence(folder)
    parts = []
    if TOKENS in reference.inputs.items[0] and reference.texts:
        parts.append(_look_at_tokenizer(repository, original, reference))
    if reference.manifest["task"] in LABELLED_TASKS:
        parts.append(_look_at_labels(repository, original))
    if reference.manifest["task"] == "sentence-similarity":
        parts.append(_look_at_pooling(repository, original))
    for part in parts:
        try:
            yield from part
        except ProblemError as problem:
            yield finding("wrong", "settings", f"{problem}.")


def _look_at_licence(folder: Path) -> Iterator[Finding]:
    files = [path.name for pattern in ("LICENSE*", "LICENCE*") for path in folder.glob(pattern)]
    if not files and not read_card(folder).get("license"):
        yield finding("risk", "licence", "No licence is named, neither in the card nor in a file.")


def _look_at_tokenizer(
    repository: Checkpoint, original: Checkpoint, reference: Reference[ReferenceRecord]
) -> Iterator[Finding]:
    assert repository.folder is not None
    path = repository.folder / repository.beside_config(TOKENIZER_FILE)
    if not path.is_file():
        if original.has(original.beside_config(TOKENIZER_FILE)):
            yield finding("wrong", "tokenizer", f"There is no {TOKENIZER_FILE}, so that most clients can't cut a text.")
        return
    most = reference.manifest["inputs"].get("max_tokens")
    if _writes(reference):
        most = PROMPT_TOKENS if most is None else prompt_limit(most)
    try:
        tokenizer = open_tokenizer(path, most)
        yield from _compare_tokens(tokenizer, reference)
    except Exception as error:  # tokenizers raises a bare Exception for a file that it cannot read
        yield finding("wrong", "tokenizer", f"{TOKENIZER_FILE} cannot be used: {first_line(error)[:120]}")
        return
    if not repository.has(repository.beside_config(TOKENIZER_CONFIG)):
        yield finding("risk", "tokenizer", f"There is no {TOKENIZER_CONFIG}, which transformers.js needs.")
    else:
        for key in CUTTING_KEYS:
            theirs, ours = repository.tokenizer_config.get(key), original.tokenizer_config.get(key)
            if theirs != ours and key in repository.tokenizer_config and key in original.tokenizer_config:
                yield finding(
                    "wrong", "tokenizer", f"{TOKENIZER_CONFIG}: {key!r} is {theirs!r}; the original has {ours!r}."
                )
    yield from _look_at_length(repository, original)


def open_tokenizer(path: Path, most: int | None) -> Any:
    """Return a tokenizer of the library tokenizers that pads nothing, and cuts texts after ``most`` tokens."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_padding()
    if most is None:
        tokenizer.no_truncation()
    else:
        tokenizer.enable_truncation(most)
    return tokenizer


def _compare_tokens(tokenizer: Any, reference: Reference[ReferenceRecord]) -> Iterator[Finding]:
    texts: Sequence[Any] = reference.texts
    items = reference.inputs.items
    is_masked = MASKED_POSITIONS in items[0] and not _writes(reference)
    if is_masked or (not isinstance(texts[0], str) and len(texts[0]) != 2):
        return  # choices, and texts with a masked word, are not made by a tokenizer alone
    found = [
        each.ids for each in tokenizer.encode_batch([text if isinstance(text, str) else tuple(text) for text in texts])
    ]
    expected = [item[TOKENS].tolist() for item in items]
    other = [index for index, (left, right) in enumerate(zip(found, expected, strict=True)) if left != right]
    if other:
        yield finding(
            "wrong",
            "tokenizer",
            f"{TOKENIZER_FILE} cuts {len(other)} of {len(texts)} texts otherwise than the original, such as "
            f"{shortened(texts[other[0]])}.",
        )


def _writes(reference: Reference[ReferenceRecord]) -> bool:
    return reference.manifest["task"] in GENERATING_TASKS


def stated_limits(checkpoint: Checkpoint) -> dict[str, int]:
    """Return after how many tokens each file of a model says that a text is cut."""
    truncation = checkpoint.tokenizer.get("truncation") or {}
    settings = checkpoint.transformer_settings_file or "sentence_bert_config.json"
    limits = {
        settings: checkpoint.transformer_settings.get("max_seq_length"),
        TOKENIZER_CONFIG: checkpoint.tokenizer_config.get("model_max_length"),
        TOKENIZER_FILE: truncation.get("max_length"),
        "config.json": most_tokens(text_settings(checkpoint.config)) if checkpoint.has("config.json") else None,
    }
    return {name: int(limit) for name, limit in limits.items() if isinstance(limit, int | float) and 0 < limit < 1e12}


def limit_of(checkpoint: Checkpoint) -> int | None:
    """Return after how many tokens a user of a folder has texts cut; None where nothing is said.

    sentence-transformers' own limit counts most, as it does in sentence-transformers.
    """
    stated = stated_limits(checkpoint)
    own = checkpoint.transformer_settings_file
    if own in stated:
        return stated[own]
    named = [stated[name] for name in (TOKENIZER_CONFIG, "config.json") if name in stated]
    return min(named, default=None)


def _look_at_length(repository: Checkpoint, original: Checkpoint) -> Iterator[Finding]:
    theirs, ours = limit_of(repository), limit_of(original)
    if theirs == ours or ours is None:
        return
    stated, meant = stated_limits(repository), stated_limits(original)
    changed = [name for name in stated if name in meant and stated[name] != meant[name]]
    if changed:
        yield finding(
            "wrong",
            "length",
            f"{changed[0]} has texts cut after {stated[changed[0]]} tokens; the original's has {meant[changed[0]]}.",
        )
        return
    missing = [name for name, limit in meant.items() if name not in stated and limit == ours]
    why = f"{missing[0]} of the original, which says so, is missing" if missing else "no file of the repository says so"
    cut = "nowhere" if theirs is None else f"after {theirs} tokens"
    yield finding("risk", "length", f"The original cuts texts after {ours} tokens, and here they are cut {cut}: {why}.")


def _look_at_labels(repository: Checkpoint, original: Checkpoint) -> Iterator[Finding]:
    ours = original.config.get("id2label")
    if not ours:
        return
    if not repository.has("config.json"):
        yield finding("wrong", "labels", "There is no config.json, so that nothing names the labels.")
        return
    theirs = repository.config.get("id2label")
    if theirs == ours:
        return
    if not theirs:
        yield finding("wrong", "labels", "config.json names no labels ('id2label'), and the original's does.")
        return
    other = next((number for number in ours if theirs.get(number) != ours[number]), None)
    if other is None:
        yield finding("wrong", "labels", f"config.json names {len(theirs)} labels; the original has {len(ours)}.")
    else:
        yield finding(
            "wrong",
            "labels",
            f"config.json calls label {other} {shortened(theirs.get(other))}; the original calls it "
            f"{shortened(ours[other])}.",
        )


def _look_at_pooling(repository: Checkpoint, original: Checkpoint) -> Iterator[Finding]:
    theirs, ours = (
        [(module.kind, pooling_modes(module.config) if module.kind == "Pooling" else []) for module in each.modules]
        for each in (repository, original)
    )
    if not theirs:
        yield finding(
            "risk", "pooling", "modules.json is missing, so that nothing says how vectors of texts are made of tokens'."
        )
        return
    if theirs != ours:
        shown = [", ".join(" ".join([kind, *modes]) for kind, modes in each[1:]) for each in (theirs, ours)]
        yield finding("wrong", "pooling", f"Vectors of texts are made by {shown[0]}; the original's by {shown[1]}.")
