"""Measure the quality of a release again, on the labelled data that it was judged by.

Only a release whose model was evaluated carries this module: ``verify_release.py --labelled`` imports it.
"""

import importlib.util
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxproof.cli import UserError
from onnxproof.evaluation.asking import Ask, answers_to, count_examples
from onnxproof.evaluation.forms import PERPLEXITY, Model, likelihood_answer
from onnxproof.evaluation.metrics import METRICS
from onnxproof.evaluation.plan import Plan, make_plan
from onnxproof.files import read_json, sha256_of
from onnxproof.graph.generation import with_empty_cache
from onnxproof.graph.sessions import open_session
from onnxproof.inputs.final_answers import IMAGES, USES
from onnxproof.inputs.material import MAX_TOKENS, likelihood_item
from onnxproof.inputs.model_inputs import LIKELIHOODS, ModelInputs
from onnxproof.parity.answers import run_items
from onnxproof.parity.card_programs import Answer, load_function, open_image, with_file
from onnxproof.parity.final import Program
from onnxproof.release.golden import QUALITY_FILE

if TYPE_CHECKING:
    from onnxproof.records.release import ReleasedQuality, ReleaseManifest

ROUNDING = 1e-6  # of the recorded scores


@dataclass(frozen=True)
class Labelled:
    """The labelled data of the one who verifies, and how many of its rows are used at most; None for all."""

    data: Path
    documents: Path | None
    most: int | None


@dataclass(frozen=True)
class Remeasured:
    """What a file of a release is worth here. ``holds`` is None where nothing was recorded that could be compared."""

    file: str
    metric: str
    seen: str
    allowed: str
    holds: bool | None

    def __str__(self) -> str:
        """Return the line that says whether the recorded figure holds."""
        verdict = {True: "the recorded figure holds", False: "the recorded figure does not hold", None: "not compared"}
        return f"{self.file}: {self.metric} {self.seen}: {verdict[self.holds]}"


def ask_program(answer: Answer, use: str, arguments: Mapping[str, Any], new_tokens: int, folder: Path) -> Ask:
    """Return how the function of a card's program is asked about one raw input.

    Args:
        answer: the function.
        use: what the model is used for.
        arguments: what the function is given beside inputs.
        new_tokens: how many tokens a text that is written has at most.
        folder: the release, or what looks like one, with the tokenizer.
    """
    given = dict(arguments)
    if "count" in inspect.signature(answer).parameters:
        given["count"] = min(new_tokens, given.get("count", new_tokens))

    def ask(raw: Any) -> Any:
        return answer([open_image(raw) if USES[use].takes == IMAGES else raw], **given)[0]

    if USES[use].gives != "tokens":
        return ask
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))

    def write(text: str) -> str:
        return str(tokenizer.decode(list(ask(text)), skip_special_tokens=True)).strip()

    return write


def ask_likelihoods(model: Path, tokenizer_file: Path, most_tokens: int | None, threads: int) -> Ask:
    """Return what tells how likely a language model finds a text.

    Args:
        model: the ONNX file.
        tokenizer_file: its ``tokenizer.json``.
        most_tokens: what the model takes at most; None where there is no limit. Longer texts are cut.
        threads: intra-op threads; with 0, onnxruntime chooses how many.
    """
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    tokenizer.no_padding()
    limit = min(most_tokens or MAX_TOKENS, MAX_TOKENS)
    tokenizer.enable_truncation(limit, direction=(tokenizer.truncation or {"direction": "right"})["direction"])
    session = open_session(model, threads)

    def likelihood(text: str) -> dict[str, float]:
        items = [likelihood_item(np.array(tokenizer.encode(text).ids, dtype=np.int64))]
        inputs = with_empty_cache(ModelInputs(items), session.get_inputs())
        return likelihood_answer(run_items(session, inputs, "text-generation")[LIKELIHOODS][0])

    return likelihood


def measure_again(
    folder: Path, manifest: "ReleaseManifest", program: Program | None, labelled: Labelled, threads: int
) -> list[Remeasured]:
    """Return what each file of a release is worth on labelled data.

    Raw inputs are answered by the program of the card. How likely a language model finds a text is asked of its file.

    Args:
        folder: the release.
        manifest: its manifest.
        program: the program of its card, see ``find_program``; None where it has none. Then nothing is measured, unless
            it is perplexity.
        labelled: the data.
        threads: intra-op threads; with 0, onnxruntime chooses how many.

    Raises:
        UserError: the data cannot be read, or a library that the metric needs is missing.
    """
    recorded: ReleasedQuality = read_json(folder / QUALITY_FILE)
    plan = plan_of(folder, manifest["model"], recorded, labelled)
    if plan.form is PERPLEXITY:
        program = None
    elif program is None:
        return []
    count = count_examples(plan)
    is_same = sha256_of(labelled.data) == recorded["data"]["sha256"]
    found = []
    for variant, facts in manifest["variants"].items():
        if "evaluation" not in facts:
            continue
        ask = ask_file(folder, manifest, program, facts["file"], recorded["new_tokens"], threads)
        answered = list(answers_to(plan, count, ask))
        labels, answers = [example.label for example, _ in answered], [answer for _, answer in answered]
        quality = facts["evaluation"]
        whole = quality["value"] if count == recorded["data"]["inputs"] else None
        scores = recorded["scores"].get(variant)
        found.append(
            compare_again(
                facts["file"], plan.metric, labels, answers, whole, scores, quality["allowed"], is_same=is_same
            )
        )
    return found


def ask_file(
    folder: Path, manifest: "ReleaseManifest", program: Program | None, file: str, new_tokens: int, threads: int
) -> Ask:
    """Return how a file of a release is asked about one raw input: by a program, or else how likely it finds a text.

    Raises:
        UserError: a library that the program needs is missing.
    """
    if program is None:
        most_tokens = manifest["reference"]["inputs"].get("max_tokens_of_model")
        return ask_likelihoods(folder / file, folder / "tokenizer.json", most_tokens, threads)
    usage = manifest["reference"]["usage"]
    use = USES[str(usage.get("use"))]
    if missing := [name for name in use.needs if importlib.util.find_spec(name) is None]:
        raise UserError(f"the card's program needs {' and '.join(missing)}, not installed here")
    function = load_function(with_file(program.text, program.file, file), use.function, folder, threads)
    return ask_program(function, use.name, usage.get("arguments", {}), new_tokens, folder)


def plan_of(folder: Path, name: str, recorded: "ReleasedQuality", labelled: Labelled) -> Plan:
    """Return how the labelled data are read, as they were for the release."""
    model = Model(recorded["use"], recorded["task"], tuple(recorded["labels"]), recorded["rate"])
    limits = [most for most in (recorded["settings"].get("max_inputs"), labelled.most) if most]
    settings = recorded["settings"] | {"max_inputs": min(limits, default=None)}
    config = read_json(folder / "config.json") if (folder / "config.json").is_file() else {}
    return make_plan(name, settings, labelled.data, labelled.documents, model, config)


def compare_again(
    file: str,
    name: str,
    labels: list[Any],
    answers: list[Any],
    whole: float | None,
    scores: list[float] | None,
    allowed: float,
    is_same: bool = True,
) -> Remeasured:
    """Compare what a file is worth here with what was recorded.

    It holds where both differ by no more than the variant was allowed to be worse than the original; of few inputs, at
    least one may change.

    Args:
        file: the file.
        name: the metric.
        labels: one an input.
        answers: those of the file, here.
        whole: the recorded metric, where these are all inputs.
        scores: the recorded scores of the first inputs, where the metric is a mean of scores.
        allowed: by how much the variant may be worse than the original.
        is_same: whether the data are those that were recorded.

    Raises:
        UserError: a library that the metric needs is missing.
    """
    metric, count = METRICS[name], len(labels)
    try:
        value = metric.value(labels, answers)
        own = metric.per_input(labels, answers) if metric.per_input else None
    except ModuleNotFoundError as error:
        raise UserError(f"the metric {name} needs {error.name}, not installed here") from None
    seen = f"{value:.4g} on {count} inputs"
    if not is_same:
        return Remeasured(file, name, f"{seen} of another file than was recorded", "", None)
    known = scores if scores is not None and len(scores) >= count else None
    if known is not None and own is not None:
        changed = int((np.abs(own - known[:count]) > ROUNDING).sum())
        seen += f", {changed} of them with another score"
    expected = whole if whole is not None else None if known is None else float(np.mean(known[:count]))
    if expected is None:
        return Remeasured(file, name, f"{seen}; only all inputs can be compared", "", None)
    room = max(allowed, (metric.largest_change or 0.0) / count) + ROUNDING
    return Remeasured(file, name, seen, f"{expected:.4g} ± {room:.2g}", bool(abs(value - expected) <= room))
