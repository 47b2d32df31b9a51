"""Tasks of MTEB and of the Language Model Evaluation Harness that users quote: which fields, and what is measured.

The fields are those of the tasks' datasets on the Hub, the metrics those that the tasks are quoted with. Nothing is
downloaded here, and texts are read as they are: the harness's own prompts and clean-ups are not applied.

Sources: embeddings-benchmark/mteb, ``mteb/tasks/``; EleutherAI/lm-evaluation-harness, ``lm_eval/tasks/``; the cards of
the datasets for their fields.
"""

from dataclasses import dataclass

PAIRS = ("sentence-similarity", "feature-extraction")
#: The fields of a document where none are named: its id, then the parts of its text.
DOCUMENT = ("id", "text")


@dataclass(frozen=True)
class Quoted:
    """A task that is known by its name.

    Attributes:
        dataset: its dataset on the Hub.
        uses: the models that it is for, see ``forms.Model``.
        inputs: the fields of an input.
        label: the field of the label; None where the text itself is the label.
        metric: what is measured, a key of ``METRICS``.
        document: where documents are searched: the field of their id, and those whose texts are joined by a space.
    """

    dataset: str
    uses: tuple[str, ...]
    inputs: tuple[str, ...]
    label: str | None
    metric: str
    document: tuple[str, ...] = ()


def _pairs(dataset: str) -> Quoted:
    return Quoted(f"mteb/{dataset}", PAIRS, ("sentence1", "sentence2"), "score", "pairs_spearman")


def _labels(dataset: str) -> Quoted:
    """Return a classification, by the names of labels: a model may number them in another order."""
    return Quoted(f"mteb/{dataset}", ("text-classification",), ("text",), "label_text", "accuracy")


def _search(dataset: str) -> Quoted:
    """Return a retrieval in BEIR's form: ``corpus.jsonl``, and ``queries.jsonl`` with what is relevant in each row."""
    return Quoted(f"mteb/{dataset}", PAIRS, ("text",), "relevant", "ndcg_at_10", ("_id", "title", "text"))


def _choices(dataset: str, inputs: tuple[str, ...], label: str) -> Quoted:
    return Quoted(dataset, ("multiple-choice",), inputs, label, "accuracy")


QUOTED: dict[str, Quoted] = {
    "mteb/STSBenchmark": _pairs("stsbenchmark-sts"),
    "mteb/SICK-R": _pairs("sickr-sts"),
    "mteb/BIOSSES": _pairs("biosses-sts"),
    **{f"mteb/STS{year}": _pairs(f"sts{year}-sts") for year in (12, 13, 14, 15, 16)},
    "mteb/Banking77Classification": _labels("banking77"),
    "mteb/EmotionClassification": _labels("emotion"),
    "mteb/ImdbClassification": _labels("imdb"),
    "mteb/SciFact": _search("scifact"),
    "mteb/NFCorpus": _search("nfcorpus"),
    "mteb/FiQA2018": _search("fiqa"),
    "mteb/ArguAna": _search("arguana"),
    "lm_eval/wikitext": Quoted(
        "EleutherAI/wikitext_document_level", ("text-generation",), ("page",), None, "perplexity"
    ),
    "lm_eval/hellaswag": _choices("Rowan/hellaswag", ("ctx", "endings"), "label"),
    "lm_eval/arc_easy": _choices("allenai/ai2_arc", ("question", "choices"), "answerKey"),
    "lm_eval/arc_challenge": _choices("allenai/ai2_arc", ("question", "choices"), "answerKey"),
}
