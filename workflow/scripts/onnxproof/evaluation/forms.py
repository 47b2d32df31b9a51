"""What labelled data are to a model: raw inputs of its public interface, labels, and answers as metrics take them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from onnxproof.cli import UserError
from onnxproof.evaluation.data import Place, Row, field_of, file_of, list_of, number_of, shown, text_of
from onnxproof.evaluation.metric import Array, Kind
from onnxproof.evaluation.quoted import DOCUMENT
from onnxproof.tasks.heads import judged_as
from onnxproof.tasks.registry import MULTI_LABEL, REGRESSION

#: What a pipeline leaves out: a word without a name.
OUTSIDE = "O"
#: Of a reranker's or an embedder's answer to a query, so many of the best documents are kept.
DOCUMENTS_KEPT = 100
#: How many characters of an input are kept for readers.
EXCERPT = 300


@dataclass(frozen=True)
class Settings:
    """What the configuration says of the data: names of fields, and what labels are called in the model.

    ``inputs`` are one field or two, empty for the form's own; ``label`` is None for the form's own. ``documents`` is
    the file of what is searched, for retrieval, and ``document`` its fields: the id, then those whose texts are joined.
    """

    inputs: tuple[str, ...] = ()
    label: str | None = None
    names: Mapping[str, Any] = field(default_factory=dict)
    documents: Path | None = None
    document: tuple[str, ...] = DOCUMENT


@dataclass(frozen=True)
class Model:
    """What the labels of a model are: ``names`` by index, empty where it has none."""

    use: str
    task: str
    names: tuple[str, ...]
    rate: int | None = None  #: samples a second, of a model that takes sounds


@dataclass(frozen=True)
class Given:
    """A row of labelled data, and what says how it is read.

    Attributes:
        row: its fields.
        place: where it is, for messages.
        inputs: the names of the fields of an input.
        label: the name of the label's field; empty where the text itself is the label.
        settings: what the configuration says of the data.
        model: whose inputs and labels they are.
    """

    row: Row
    place: Place
    inputs: tuple[str, ...]
    label: str
    settings: Settings
    model: Model

    @property
    def labelled(self) -> tuple[Row, str, Place]:
        """The row, the name of the label's field, and the place, as the readers of fields take them."""
        return self.row, self.label, self.place

    def field(self, number: int) -> tuple[Row, str, Place]:
        """Return the same for a field of the input."""
        return self.row, self.inputs[number], self.place

    def raw(self, takes: str) -> Any:
        """Return the one raw input: a text, a pair of texts, the bytes of an image, or the samples of a sound."""
        if takes == "image":
            return np.frombuffer(file_of(*self.field(0)).read_bytes(), dtype=np.uint8)
        if takes == "sound":
            from onnxproof.evaluation.sounds import read_sound

            assert self.model.rate is not None
            return read_sound(file_of(*self.field(0)), self.model.rate)
        texts = [text_of(self.row, name, self.place) for name in self.inputs]
        return texts[0] if len(texts) == 1 else tuple(texts)

    def wrong_label(self, wanted: str, found: Any) -> UserError:
        """Return the complaint about a label's field that must ``wanted``, and holds something else."""
        return UserError(f"{self.place}: the field {self.label!r} must {wanted}, not {shown(found)}")

    def label_index(self, value: Any) -> int:
        """Return the index of the model's label that a value of the data names: by its name, or by its number.

        Raises:
            UserError: the model has no such label.
        """
        names, asked = self.model.names, self.settings.names.get(str(value), value)
        if str(asked) in names:
            return names.index(str(asked))
        folded = [name.casefold() for name in names]
        if isinstance(asked, str) and asked.casefold() in folded:
            return folded.index(asked.casefold())
        number = _whole(asked)
        if number is not None and 0 <= number < len(names):
            return number
        raise UserError(
            f"{self.place}: the label {shown(value)} is none of the model's labels: "
            f"{', '.join(names[:12])}{', …' if len(names) > 12 else ''}; evaluation.labels can map it to one"
        )


@dataclass(frozen=True)
class Example:
    """One labelled input: its place, what the interface is asked, in as many parts as it takes, and the label.

    ``shown`` is the beginning of the input as a reader knows it: its text, or the name of its file.
    """

    place: Place
    raw: Sequence[Any]
    label: Any
    shown: str


@dataclass(frozen=True)
class Form:
    """How a use is evaluated.

    Attributes:
        kind: the kind of answer that its metrics take.
        metric: the metric that is measured where none is named.
        inputs: the names of the fields of an input, unless others are given.
        label: the field of the label, unless another is given; None where the text itself is the label.
        read: takes a row with what says how it is read; returns raw inputs and the label.
        answer: takes what the interface answers to the raw inputs of an example, the example and the model; returns the
            answer as the kind's metrics take it, as JSON can hold it but for arrays.
    """

    kind: Kind
    metric: str
    inputs: tuple[str, ...]
    label: str | None
    read: Callable[[Given], tuple[Sequence[Any], Any]]
    answer: Callable[[Sequence[Any], Example, Model], Any]

    def example(self, row: Row, place: Place, settings: Settings, model: Model) -> Example:
        """Return a row as a labelled input.

        Raises:
            UserError: a field is missing or holds something else, or the model does not know the label.
        """
        inputs, label = settings.inputs or self.inputs, settings.label or self.label or ""
        raw, known = self.read(Given(row, place, inputs, label, settings, model))
        return Example(place, raw, known, excerpt([row[name] for name in inputs]))


def form_of(model: Model, config: Mapping[str, Any], settings: Settings) -> Form | None:
    """Return how a model is evaluated; None where no form is known for its use.

    Args:
        model: its use, task and labels.
        config: the content of ``config.json``.
        settings: what the configuration says of the data.
    """
    if model.use in ("sentence-similarity", "feature-extraction"):
        return RETRIEVAL if settings.documents else SIMILARITY
    if model.use == "text-generation":
        return PERPLEXITY if settings.label is None else WRITTEN
    if model.use in LABELLED:
        takes = LABELLED[model.use]
        kind = {MULTI_LABEL: "multi-label", REGRESSION: "regression"}.get(judged_as(model.task, config))
        return _labelled(takes, kind)
    return FORMS.get(model.use)


def excerpt(values: Sequence[Any]) -> str:
    """Return the beginning of an input's fields, as one line."""
    text = " | ".join(" ".join(map(str, value)) if isinstance(value, list) else str(value) for value in values)
    return text if len(text) <= EXCERPT else f"{text[: EXCERPT - 1]}…"


def _whole(value: Any) -> int | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return int(value)
    return int(value) if isinstance(value, str) and value.strip().isdecimal() else None


def _read_labelled(takes: str, kind: str | None, given: Given) -> tuple[Sequence[Any], Any]:
    raw = [given.raw(takes)]
    if kind == "regression":
        return raw, number_of(*given.labelled)
    if kind == "multi-label":
        return raw, sorted({given.label_index(value) for value in list_of(*given.labelled)})
    return raw, given.label_index(field_of(*given.labelled))


def _scores(answers: Sequence[Mapping[str, float]], example: Example, model: Model) -> Any:
    return {"scores": [answers[0][name] for name in model.names]}


def _value(answers: Sequence[Mapping[str, float]], example: Example, model: Model) -> float:
    return float(answers[0][model.names[0]])


def _labelled(takes: str, kind: str | None) -> Form:
    inputs = {"text": ("text",), "pair": ("text", "text_pair"), "image": ("image",), "sound": ("audio",)}[takes]
    read = partial(_read_labelled, takes, kind)
    if kind == "regression":
        return Form("regression", "mean_absolute_error", inputs, "label", read, _value)
    if kind == "multi-label":
        return Form("multi-label", "micro_f1", inputs, "labels", read, _scores)
    return Form("classification", "accuracy", inputs, "label", read, _scores)


def _read_choice(given: Given) -> tuple[Sequence[Any], Any]:
    """Read a text, its choices and the number of the right one; ARC's choices are ``{"text": […], "label": […]}``."""
    text, choices, right = text_of(*given.field(0)), field_of(*given.field(1)), field_of(*given.labelled)
    if isinstance(choices, Mapping) and {"text", "label"} <= choices.keys():
        names, choices = list(choices["label"]), list(choices["text"])
        number = names.index(right) if right in names else None
    else:
        choices, number = list_of(*given.field(1)), _whole(right)
    if number is None or not 0 <= number < len(choices):
        wanted = f"be the number of a choice, 0 to {len(choices) - 1}"
        raise given.wrong_label(wanted, given.row[given.label])
    return [[text, choices]], number


def _read_words(given: Given) -> tuple[Sequence[Any], Any]:
    words, tags = list_of(*given.field(0)), list_of(*given.labelled)
    if len(words) != len(tags) or not words:
        raise UserError(f"{given.place}: has {len(words)} words and {len(tags)} labels; each word needs one")
    odd = [word for word in words if not isinstance(word, str) or not word or " " in word]
    if odd:
        raise UserError(
            f"{given.place}: the field {given.inputs[0]!r} must hold words without spaces, not {shown(odd[0])}"
        )
    return [" ".join(words)], [given.model.names[given.label_index(tag)] for tag in tags]


def _tags(answers: Sequence[Sequence[Mapping[str, Any]]], example: Example, model: Model) -> list[str]:
    """Return the label of each word: that of its first part, as the data sets of this task are scored."""
    tags, end, found = [], -1, list(answers[0])
    for word in example.raw[0].split(" "):
        start, end = end + 1, end + 1 + len(word)
        first = next((tag for tag in found if start <= tag["start"] < end), None)
        # A word whose first part has no name is outside, whatever its other parts are.
        is_first = first is not None and not example.raw[0][start : first["start"]].strip()
        tags.append(str(first["entity"]) if first is not None and is_first else OUTSIDE)
    return tags


def _read_question(given: Given) -> tuple[Sequence[Any], Any]:
    return [tuple(text_of(given.row, name, given.place) for name in given.inputs)], _accepted(given)


def _accepted(given: Given) -> list[str]:
    """Return the accepted texts of a row: one, several, or those of SQuAD's ``{"text": [...]}``."""
    value = field_of(*given.labelled)
    if isinstance(value, Mapping) and "text" in value:
        value = value["text"]
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, Sequence) or not texts or not all(isinstance(text, str) for text in texts):
        raise given.wrong_label("be a text or a list of texts", given.row[given.label])
    return list(texts)


def _read_pair(given: Given) -> tuple[Sequence[Any], Any]:
    if len(given.inputs) != 2:
        raise UserError(f"evaluation.input must name two fields for an embedder's pairs, not {', '.join(given.inputs)}")
    return [text_of(given.row, name, given.place) for name in given.inputs], number_of(*given.labelled)


def _similarity(answers: Sequence[Any], example: Example, model: Model) -> float:
    first, second = (unit_vector(answer) for answer in answers)
    return float(first @ second)


def unit_vector(answer: Any) -> Any:
    """Return an embedding, or the mean of the vectors of a text's tokens, with a length of 1; float64 (size,)."""
    vector = np.asarray(answer, dtype=np.float64)
    vector = vector.mean(axis=0) if vector.ndim == 2 else vector
    return vector / max(float(np.linalg.norm(vector)), 1e-12)


def _read_ranked(given: Given) -> tuple[Sequence[Any], Any]:
    """Read a query, its documents, and the relevance of each, for a reranker."""
    query, documents = text_of(*given.field(0)), list_of(*given.field(1))
    grades = list_of(*given.labelled)
    if len(grades) != len(documents) or not documents:
        raise UserError(
            f"{given.place}: has {len(documents)} documents and {len(grades)} labels; each document needs one"
        )
    if not all(_whole(grade) is not None for grade in grades):
        raise given.wrong_label("hold whole numbers", given.row[given.label])
    relevance = {str(number): _whole(grade) for number, grade in enumerate(grades)}
    return [(query, str(document)) for document in documents], relevance


def _ranking(answers: Sequence[float], example: Example, model: Model) -> list[list[Any]]:
    return best([(str(number), float(score)) for number, score in enumerate(answers)])


def best(scored: Sequence[tuple[str, float]]) -> list[list[Any]]:
    """Return the documents with the highest scores, ``[id, score]`` each."""
    return [[name, score] for name, score in sorted(scored, key=lambda pair: -pair[1])[:DOCUMENTS_KEPT]]


def _read_query(given: Given) -> tuple[Sequence[Any], Any]:
    """Read a query and the documents that answer it: a list of their ids, or ``{id: relevance}``."""
    query, relevant = text_of(*given.field(0)), field_of(*given.labelled)
    if isinstance(relevant, Mapping):
        grades = {str(name): _whole(grade) for name, grade in relevant.items()}
        if not all(grade is not None for grade in grades.values()):
            raise given.wrong_label("hold whole numbers", relevant)
    else:
        names = [relevant] if isinstance(relevant, str | int) else list_of(*given.labelled)
        grades = {str(name): 1 for name in names}
    if not grades:
        raise UserError(f"{given.place}: the field {given.label!r} names no document")
    return [query], grades


def _read_written(takes: str, given: Given) -> tuple[Sequence[Any], Any]:
    return [given.raw(takes)], _accepted(given)


def _text(answers: Sequence[Any], example: Example, model: Model) -> str:
    answer = answers[0]
    return str(answer["text"] if isinstance(answer, Mapping) else answer)


def _read_text(given: Given) -> tuple[Sequence[Any], Any]:
    return [text_of(*given.field(0))], None


def likelihood_answer(log_likelihoods: Array) -> dict[str, float]:
    """Return the answer about a text from the log-likelihoods of its tokens, in nats, (tokens,)."""
    return {"log_likelihood": float(log_likelihoods.sum()), "tokens": len(log_likelihoods)}


def _as_it_is(answers: Sequence[Any], example: Example, model: Model) -> Any:
    return answers[0]


def _read_boxes(given: Given) -> tuple[Sequence[Any], Any]:
    boxes = list_of(*given.labelled)
    known = []
    for box in boxes:
        if not isinstance(box, Mapping) or not {"box", "label"} <= box.keys() or len(box["box"]) != 4:
            wanted = 'hold objects such as {"box": [left, top, right, bottom], "label": "cat"}'
            raise given.wrong_label(wanted, box)
        name = given.model.names[given.label_index(box["label"])]
        known.append({"box": [float(side) for side in box["box"]], "label": name})
    return [given.raw("image")], known


def _read_map(kind: str, given: Given) -> tuple[Sequence[Any], Any]:
    """Read an image and what each of its pixels is: a label's number, or a depth, as a PNG or an array of NumPy."""
    path = file_of(*given.labelled)
    if path.suffix == ".npy":
        values = np.load(path)
    else:
        from PIL import Image

        values = np.asarray(Image.open(path))
    if values.ndim != 2:
        raise UserError(f"{given.place}: {path.name} must have one value a pixel, and has the shape {values.shape}")
    dtype = np.int32 if kind == "segmentation" else np.float32
    return [given.raw("image")], np.ascontiguousarray(values, dtype=dtype)


def _sized_map(answers: Sequence[Any], example: Example, model: Model) -> Any:
    values = np.asarray(answers[0])
    if values.shape != example.label.shape:
        raise UserError(
            f"{example.place}: the label has {example.label.shape} pixels, and the answer {values.shape}: a label must "
            "have the size of its image"
        )
    return values


#: Uses whose answers are labels with scores, and what they take.
LABELLED = {
    "text-classification": "text",
    "text-pair-classification": "pair",
    "image-classification": "image",
    "audio-classification": "sound",
}
SIMILARITY = Form("pair", "pairs_spearman", ("text1", "text2"), "score", _read_pair, _similarity)
RETRIEVAL = Form("retrieval", "ndcg_at_10", ("query",), "relevant", _read_query, _as_it_is)
PERPLEXITY = Form("language-model", "perplexity", ("text",), None, _read_text, _as_it_is)
WRITTEN = Form("text", "rouge_l", ("text",), "target", partial(_read_written, "text"), _text)
FORMS: dict[str, Form] = {
    "reranking": Form("retrieval", "ndcg_at_10", ("query", "documents"), "relevant", _read_ranked, _ranking),
    "multiple-choice": Form(
        "classification",
        "accuracy",
        ("text", "choices"),
        "label",
        _read_choice,
        lambda answers, example, model: {"scores": list(answers[0])},
    ),
    "token-classification": Form("token-classification", "entity_f1", ("tokens",), "tags", _read_words, _tags),
    "question-answering": Form(
        "question-answering",
        "answer_f1",
        ("question", "context"),
        "answers",
        _read_question,
        lambda a, e, m: a[0]["answer"],
    ),
    "text2text-generation": Form("text", "chrf", ("text",), "target", partial(_read_written, "text"), _text),
    "image-to-text": Form("text", "chrf", ("image",), "text", partial(_read_written, "image"), _text),
    "automatic-speech-recognition": Form(
        "text", "word_error_rate", ("audio",), "text", partial(_read_written, "sound"), _text
    ),
    "speech-to-text": Form("text", "word_error_rate", ("audio",), "text", partial(_read_written, "sound"), _text),
    "object-detection": Form("detection", "mean_average_precision", ("image",), "objects", _read_boxes, _as_it_is),
    "semantic-segmentation": Form(
        "segmentation", "mean_iou", ("image",), "map", partial(_read_map, "segmentation"), _sized_map
    ),
    "depth-estimation": Form(
        "depth", "depth_absolute_relative_error", ("image",), "map", partial(_read_map, "depth"), _sized_map
    ),
}
