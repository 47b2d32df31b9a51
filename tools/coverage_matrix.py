"""Run every case of the matrix through the chain and write docs/coverage.md: ``make coverage``.

It has three columns: ``saved4``, the cases of ``architectures`` in folders that transformers 4.57 saved; ``saved5``,
the same cases saved by transformers 5; and ``new``, the cases of ``new_architectures``. Two processes share the rows,
since starting Python for each step of each case would take hours. Finished rows are kept in a file, and a run that was
interrupted goes on from there. ``--also int8-static fp16`` makes further variants of each case that passes; what they
miss is in a section of its own. ``--further`` rewrites that section alone, from the rows that are finished.
"""

import argparse
import contextlib
import hashlib
import json
import multiprocessing
import os
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import project_path
from architectures import Architecture, all_cases
from list_architectures import FAILING, FAILING_TASKS
from new_architectures import new_cases
from onnxproof.cli import UserError, run_script
from onnxproof.files import read_json
from onnxproof.vocabulary import QUANTIZED_VARIANTS

ROOT = project_path.ROOT
#: Who saved the folders of a column, or which cases are in it.
COLUMNS = {"saved4": "saved by 4.57", "saved5": "saved by 5", "new": "new types"}
#: Names the interpreter of the environment with transformers 4.57, where that is not ``.venv-optimum``'s.
OPTIMUM_PYTHON = "ONNXPROOF_OPTIMUM_PYTHON"
#: Where finished rows are kept, and the models that transformers 4.57 saved.
RECORDS, SAVED = ROOT / "results" / "coverage.jsonl", ROOT / "results" / "coverage-saved4"

#: What int8 must keep of a tiny model with random weights, which averages out less than a real one.
INT8_THRESHOLDS = {
    "cosine_min": 0.95,
    "cosine_mean": 0.98,
    "top1_agreement": 0.85,
    "token_agreement": 0.93,
    "span_agreement": 0.85,
    "greedy_token_match": 0.1,
    "next_token_agreement": 0.85,
    "order_agreement": 0.95,
    "detection_agreement": 0.85,
    "pixel_agreement": 0.95,
    "mean_relative_diff": 0.05,
    "batch_cosine_min": 0.9,
}
#: What variants with fixed or tokens' own scales must keep besides, because a batch changes nothing.
UNCHANGING = {"batch_cosine_min": 0.99999}
#: What further variants must keep besides what int8 must; None: the gate's own limits.
OWN_LIMITS: dict[str, dict[str, float] | None] = {
    "fp16": None,
    "int8-static": UNCHANGING,
    "int8-symmetric": UNCHANGING,
    "int8-invariant": UNCHANGING,
}
LONGEST_REASON = 250
#: The heading of the section about them in the document, and of the section behind it.
FURTHER_VARIANTS, REFUSED_TYPES = "## Further variants", "## Types that are refused"
EVALUATION_TEXTS = 24
INTEGER_OPERATORS = ("QAttention", "MatMulInteger", "DynamicQuantizeMatMul", "DequantizeLinear")
#: The rewrite of ours that stands for a fusion, but whose nodes are plain ones.
REWRITTEN = "DisentangledAttention"


#: Types of which onnxruntime cannot run the exported graph: it reshapes by sizes that were traced.
_LONGFORMER = "onnxruntime cannot run the graph"
#: Cases that do not pass, for reasons that are known: (column, name) → a part of the reason. Where int8 misses a limit,
#: the fp32 graph answers as PyTorch does: random weights stand on the edge of a decision more often than trained ones.
KNOWN_FAILURES: dict[tuple[str, str], str] = {
    ("saved4", "longformer feature-extraction"): _LONGFORMER,
    ("saved4", "longformer text-classification"): _LONGFORMER,
    ("saved4", "roberta multiple-choice"): "int8: batch_cosine_min",
    ("saved4", "mt5 text2text-generation"): "int8: next_token_agreement",
    ("saved5", "longformer feature-extraction"): _LONGFORMER,
    ("saved5", "longformer text-classification"): _LONGFORMER,
    ("saved5", "mt5 text2text-generation"): "int8: batch_cosine_min",
    ("saved5", "xlm-roberta reranker"): "int8: order_agreement",
    ("new", "ultrabert token-classification"): "int8: batch_cosine_min",
    ("new", "ultrabert question-answering"): "int8: span_agreement",
    # Their layers keep a state that is no keys and values, for which clients have no form.
    ("new", "lfm2 text-generation"): "its cache holds more than keys and values",
    ("new", "lfm3 text-generation"): "its cache holds more than keys and values",
    ("new", "dory text-generation"): "int8: next_token_agreement",
    # Made by Optimum's exporter; 2 % over the limit of the gate.
    ("new", "d_fine object-detection"): "fp32: max_relative_diff",
    # int8 keeps 73 % of the boxes. Why it loses the others is not known.
    ("new", "lw_detr object-detection"): "int8: detection_agreement",
    ("new", "sapiens2 semantic-segmentation"): "int8: batch_cosine_min",
    ("new", "parakeet_ctc automatic-speech-recognition"): "int8: token_agreement",
}
#: Why a further variant misses a limit, where that was looked into: (name, variant) → what the model itself does.
KNOWN_MISSES: dict[tuple[str, str], str] = {
    ("levit image-classification", "fp16"): "its logits reach 4,605: rounding the weights to float16, with all "
    "arithmetic in float32, moves a probability by 0.06, and changing them at random by up to 2^-12 by 0.38",
    ("mobilenet_v1 image-classification", "fp16"): "rounding the weights to float16, with all arithmetic in float32, "
    "moves a probability by 0.05, and changing them at random by up to 2^-12 by 0.03",
}


@dataclass
class Row:
    """What became of one case in one column; ``reason`` is empty where it passed the whole chain.

    ``made_from`` is the sha256 of the exported graphs and of the reference, which decide all that follows. ``others``
    has what further variants miss, by their names: nothing where they pass.
    """

    column: str
    name: str
    task: str
    exporter: str = ""
    fused: str = ""
    integers: str = ""
    fp32: str = ""
    int8: str = ""
    reason: str = ""
    made_from: str = ""
    seconds: float = 0.0
    others: dict[str, str] = field(default_factory=dict)

    @property
    def is_known(self) -> bool:
        """Tell whether the row fails for the reason that is written down for it."""
        known = KNOWN_FAILURES.get((self.column, self.name))
        return bool(self.reason) and known is not None and known in self.reason


def cases_of(column: str) -> list[Architecture]:
    """Return the cases of a column."""
    return new_cases() if column == "new" else all_cases()


def older_python() -> Path | None:
    """Return the interpreter of the environment with transformers 4.57; None where there is none."""
    python = Path(os.environ.get(OPTIMUM_PYTHON) or ROOT / ".venv-optimum" / "bin" / "python")
    return python if python.is_file() else None


def save_with_older(names: Sequence[str], folder: Path) -> None:
    """Save those cases of ``architectures`` that are not below ``folder`` yet, with transformers 4.57.

    Raises:
        RuntimeError: there is no such environment.
        subprocess.CalledProcessError: a case cannot be saved.
    """
    python = older_python()
    if python is None:
        raise RuntimeError(f"no environment with transformers 4.57: set {OPTIMUM_PYTHON}, or make .venv-optimum")
    command = [str(python), str(ROOT / "tests" / "support" / "architectures.py"), str(folder), *names]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def few_texts(folder: Path) -> Path:
    """Write every twelfth of the bundled evaluation texts to a file: all languages and lengths."""
    from onnxproof.inputs.texts import EVALUATION_TEXTS as BUNDLED
    from onnxproof.inputs.texts import read_texts

    texts = read_texts(BUNDLED)
    chosen = [" ".join(text.split()) for text in texts[:: len(texts) // EVALUATION_TEXTS]][:EVALUATION_TEXTS]
    file = folder / "texts.txt"
    file.write_text("\n".join(chosen) + "\n", encoding="utf-8")
    return file


def run_case(
    case: Architecture,
    column: str = "saved5",
    saved: Path | None = None,
    records: Path | None = None,
    also: Sequence[str] = (),
) -> Row:
    """Run the chain on a case's model and judge every variant.

    Args:
        case: the case.
        column: one of ``COLUMNS``.
        saved: the folder of its model; None to save it now.
        records: the rows of finished cases. Where one was made from the same graphs and the same reference, as those
            of one model saved by two versions mostly are, its variants are the same too and are not made again.
        also: further variants to make and judge, where the others pass.
    """
    import torch

    from chain import missed, run_chain

    torch.set_num_threads(1)
    row = Row(column, case.name, case.task)
    twin = None
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        model = saved or folder / "model"
        try:
            if saved is None:
                case.save(model)
            for manifest, parity in run_chain(
                case.name, model, folder / "results", few_texts(folder), INT8_THRESHOLDS, case.requested
            ):
                variant = parity["variant"]
                row.exporter = row.exporter or manifest["settings"].get("exporter", "")
                if parity["task"] != case.task:
                    row.reason = f"taken for a model of the task {parity['task']}"
                    break
                if variant == "fp32":
                    largest = max(output["max_relative_diff"] for output in parity["outputs"].values())
                    row.fp32 = f"{largest:.0e}"
                    row.made_from = digest_of(manifest, read_json(folder / "results" / "reference.json"))
                    twin = twin_of(row, records, also) if records else None
                    if twin:
                        row.fused, row.integers, row.int8, row.reason, row.others = (
                            twin.fused,
                            twin.integers,
                            twin.int8,
                            twin.reason,
                            twin.others,
                        )
                        break
                elif variant == "optimized":
                    row.fused = describe_counts(fused_of(manifest["settings"])) or "none"
                else:
                    operators = manifest["operators"]
                    row.integers = describe_counts({name: operators.get(name, 0) for name in INTEGER_OPERATORS})
                    row.int8 = describe_metrics(parity["task_metrics"])
                failures = missed(parity, INT8_THRESHOLDS if variant == "int8" else None)
                if failures:
                    row.reason = f"{variant}: {'; '.join(map(str, failures))}"
                    break
        except Exception as error:
            row.reason = describe_error(case.name, error)
        if not row.reason and twin is None:
            row.others = {variant: run_variant(case.name, folder / "results", variant) for variant in also}
    row.seconds = time.monotonic() - start
    return row


def run_variant(name: str, results: Path, variant: str) -> str:
    """Make a further variant of a case that passed; return what it misses, and why it cannot be made.

    Where the gate's own limits judge it, the search has the default targets, which are made for these limits.
    """
    from chain import TARGETS, missed, quantize_variant

    own = OWN_LIMITS.get(variant, {})
    limits = None if own is None else INT8_THRESHOLDS | own
    targets = TARGETS[variant] if own is None else INT8_THRESHOLDS
    try:
        parity = quantize_variant(name, results, variant, targets)[1]
    except Exception as error:
        return describe_error(name, error)
    return "; ".join(map(str, missed(parity, limits)))


def describe_error(name: str, error: Exception) -> str:
    """Return why a case did not pass; what is not meant for users is a defect of ours."""
    if isinstance(error, UserError):
        return str(error).removeprefix(f"{name}: ")[:LONGEST_REASON]
    return f"a step crashed: {type(error).__name__}: {' '.join(str(error).split())}"[:LONGEST_REASON]


def digest_of(manifest: dict[str, Any], reference: dict[str, Any]) -> str:
    """Return one sha256 over the files of an export and of a reference, as their manifests describe them."""
    files = json.dumps([manifest["files"], reference["files"]], sort_keys=True)
    return hashlib.sha256(files.encode()).hexdigest()


def twin_of(row: Row, records: Path, also: Sequence[str]) -> Row | None:
    """Return a finished row of the same case, with these variants, that was made from the same graphs and reference."""
    return next(
        (
            other
            for other in read_records(records).values()
            if other.name == row.name and other.made_from == row.made_from and has_variants(other, also)
        ),
        None,
    )


def has_variants(row: Row, also: Sequence[str]) -> bool:
    """Tell whether a row has these further variants; one that failed before them needs none."""
    return bool(row.reason) or set(also) <= row.others.keys()


def fused_of(settings: dict[str, Any]) -> dict[str, int]:
    """Return how often each fused operator occurs, in all graphs of a model together, and DeBERTa's attention."""
    counts: Counter[str] = Counter()
    for graph in settings.get("graphs", {"": settings}).values():
        counts.update(graph["fused"])
        counts[REWRITTEN] += graph.get("rewrites", {}).get(REWRITTEN, 0)
    return dict(counts)


def describe_counts(counts: dict[str, int]) -> str:
    """Return "4 MatMulInteger, 2 QAttention" for the operators that occur."""
    return ", ".join(f"{count} {name}" for name, count in counts.items() if count)


def describe_metrics(metrics: dict[str, float | None]) -> str:
    """Return a task's first metric, the one that its users would name first; of generated text its second too.

    A text written freely goes another way after the first other token, which with random weights comes soon.
    """
    shown = list(metrics.items())[: 2 if "greedy_token_match" in metrics else 1]
    return ", ".join(f"{name} {'not finite' if value is None else format(value, '.4f')}" for name, value in shown)


def run_rows(
    wanted: Sequence[tuple[str, str]], processes: int, records: Path | None = None, also: Sequence[str] = ()
) -> Iterator[Row]:
    """Run cases, given as (column, name), in a few processes of one thread each; yield rows as they are finished."""
    older = [name for column, name in wanted if column == "saved4"]
    if older:
        print(f"saving {len(older)} models with transformers 4.57", flush=True)
        save_with_older(older, SAVED)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        for job in as_completed([pool.submit(run_named_case, column, name, records, also) for column, name in wanted]):
            yield job.result()


def run_named_case(column: str, name: str, records: Path | None, also: Sequence[str]) -> Row:
    """Run the case of this name, with the chain's own output left out."""
    case = next(case for case in cases_of(column) if case.name == name)
    with open(os.devnull, "w") as sink, contextlib.redirect_stdout(sink), contextlib.redirect_stderr(sink):
        return run_case(case, column, SAVED / name if column == "saved4" else None, records, also)


def read_records(file: Path) -> dict[tuple[str, str], Row]:
    """Return the rows of earlier runs, by column and name; of two rows of one case the later one."""
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    rows = [Row(**json.loads(line)) for line in lines]
    return {(row.column, row.name): row for row in rows}


def write_table(rows: Iterable[Row], file: Path) -> None:
    """Write the document: the cases that do not pass, those that do, and what is not served."""
    found = {(row.column, row.name): row for row in rows}
    passed = [row for row in found.values() if not row.reason]
    versions = ", ".join(f"{name} {version}" for name, version in tool_versions().items())
    lines = [
        "# Architectures and tasks that were run through the chain",
        "",
        f"{len(passed)} of {len(found)} runs pass every step and every gate. Each is a tiny model with random weights, "
        "made from transformers' own config class. This proves that the architecture goes through export, "
        "optimization and quantization and stays equal. It does not show how well a trained model survives int8. "
        f"Written by `make coverage`, with {versions}.",
        "",
        "Every case of the first table runs twice: from a folder that transformers 4.57 saved, and from one that "
        "transformers 5 saved. The reference is what transformers 5 answers. The fp32 column is the largest difference "
        "from PyTorch over the largest value; int8 is the task's own measure on 24 texts, 24 images or 16 sounds. "
        "DisentangledAttention is not an operator: it stands for attentions that are rewritten with fewer nodes.",
        "",
        "## Cases that do not pass",
        "",
        "| case | folder | reason |",
        "| --- | --- | --- |",
        *[
            f"| {row.name} | {COLUMNS[row.column]} | {row.reason.replace('|', '/')} |"
            for row in sorted(found.values(), key=lambda row: list(COLUMNS).index(row.column))
            if row.reason
        ],
        "",
        "## Cases of both versions",
        "",
        "| case | saved by 4.57 | saved by 5 | exporter | fused operators | integer operators | fp32 | int8 |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for case in all_cases():
        both = [found.get((column, case.name)) for column in ("saved4", "saved5")]
        shown = next((row for row in reversed(both) if row is not None and not row.reason), both[1] or both[0])
        if shown is not None:
            lines.append(f"| {case.name} | {_verdict(both[0])} | {_verdict(both[1])} | {_details(shown)} |")
    lines += [
        "",
        "## Cases of types that Optimum's exporter does not have",
        "",
        "| case | verdict | exporter | fused operators | integer operators | fp32 | int8 |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for case in new_cases():
        row = found.get(("new", case.name))
        if row is not None:
            lines.append(f"| {case.name} | {_verdict(row)} | {_details(row)} |")
    lines += [
        "",
        *_further_variants(list(found.values())),
        REFUSED_TYPES,
        "",
        "transformers has a class for them, but they are refused before anything is downloaded.",
        "",
        "| model type | task | reason |",
        "| --- | --- | --- |",
        *[f"| {model_type} | every | {reason} |" for model_type, reason in FAILING.items()],
        *[f"| {model_type} | {task} | {reason} |" for (task, model_type), reason in FAILING_TASKS.items()],
        "",
    ]
    file.write_text("\n".join(lines), encoding="utf-8")


def rewrite_further_variants(rows: Sequence[Row], file: Path) -> None:
    """Replace the section about further variants in the document with what these rows say; put it in if it lacks it.

    Raises:
        UserError: there is no such document, or the rows have no further variants.
    """
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    before, heading, behind = text.partition(REFUSED_TYPES)
    lines = _further_variants(rows)
    if not heading:
        raise UserError(f"{file}: no document with the section {REFUSED_TYPES!r}; write it with --output")
    if not lines:
        raise UserError(f"{file}: no finished row has further variants; make them with --also")
    before = before.partition(FURTHER_VARIANTS)[0]
    file.write_text(before + "\n".join([*lines, heading]) + behind, encoding="utf-8")


def _further_variants(rows: Sequence[Row]) -> list[str]:
    """Return the section about variants that were made of cases that pass; nothing where there are none."""
    variants = list(dict.fromkeys(variant for row in rows for variant in row.others))
    if not variants:
        return []
    lines = [
        FURTHER_VARIANTS,
        "",
        "They were made of cases that pass, and judged as int8 is; fp16 was searched for with the default targets and "
        "judged by the gate's own limits. *Cases* is how many were run. *Not finite*: an answer is infinite or no "
        "number.",
        "",
        "| variant | cases | pass | miss a limit | not finite | not made |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for variant in variants:
        missed = [row.others[variant] for row in rows if variant in row.others]
        bad = [reason for reason in missed if "not finite" in reason]
        limits = [reason for reason in missed if "allowed" in reason and reason not in bad]
        passed = missed.count("")
        others = len(missed) - passed - len(bad) - len(limits)
        lines.append(f"| {variant} | {len(missed)} | {passed} | {len(limits)} | {len(bad)} | {others} |")
    lines += ["", "| case | folder | variant | reason |", "| --- | --- | --- | --- |"]
    lines += [
        f"| {row.name} | {COLUMNS[row.column]} | {variant} | {reason.replace('|', '/')}{_known_miss(row, variant)} |"
        for row in rows
        for variant, reason in row.others.items()
        if reason
    ]
    return [*lines, ""]


def _known_miss(row: Row, variant: str) -> str:
    why = KNOWN_MISSES.get((row.name, variant))
    return f" ({why})" if why else ""


def _verdict(row: Row | None) -> str:
    return "not run" if row is None else "fails" if row.reason else "passes"


def _details(row: Row) -> str:
    return " | ".join((row.exporter, row.fused, row.integers, row.fp32, row.int8))


def tool_versions() -> dict[str, Any]:
    """Return the versions that decide what can be exported and run."""
    from onnxproof.files import versions_of

    return versions_of("transformers", "torch", "onnxruntime")


def main(argv: list[str] | None = None) -> int:
    """Run all cases, or those whose names contain one of the given words; return 1 if a failure is not a known one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("words", nargs="*", help="only cases whose names contain one of these")
    parser.add_argument("--column", choices=COLUMNS, action="append", help="only these columns; all when left out")
    parser.add_argument(
        "--also", nargs="+", default=[], choices=QUANTIZED_VARIANTS, metavar="VARIANT", help="make these variants too"
    )
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--records", type=Path, default=RECORDS, help="file of finished rows, which are not run again")
    parser.add_argument("--again", action="store_true", help="also run rows again that are finished")
    parser.add_argument("--output", type=Path, help="file to write the tables to; only printed when left out")
    parser.add_argument(
        "--further", type=Path, metavar="DOCUMENT", help="run nothing, rewrite its section about further variants"
    )
    args = parser.parse_args(argv)
    os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    columns = args.column or list(COLUMNS)
    if "saved4" in columns and older_python() is None:
        print(f"the column saved4 is left out: set {OPTIMUM_PYTHON}, or make .venv-optimum")
        columns = [column for column in columns if column != "saved4"]
    chosen = [
        (column, case.name)
        for column in columns
        for case in cases_of(column)
        if not args.words or any(word in case.name for word in args.words)
    ]
    finished = read_records(args.records)
    if args.further:
        rewrite_further_variants([finished[key] for key in chosen if key in finished], args.further)
        return 0
    finished, twins = ({}, None) if args.again else (finished, args.records)
    args.records.parent.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    with args.records.open("a", encoding="utf-8") as records:
        wanted = [key for key in chosen if key not in finished or not has_variants(finished[key], args.also)]
        for row in run_rows(wanted, args.processes, twins, args.also):
            finished[row.column, row.name] = row
            print(json.dumps(asdict(row)), file=records, flush=True)
            print(f"{row.seconds:5.1f} s  {row.column} {row.name}: {row.reason or 'passed'}", flush=True)
    rows = [finished[key] for key in chosen]
    unexpected = [row for row in rows if row.reason and not row.is_known]
    print(f"{sum(not row.reason for row in rows)} of {len(rows)} passed in {time.monotonic() - start:.0f} s")
    for row in unexpected:
        print(f"not a known failure: {row.column} {row.name}: {row.reason}")
    if args.output:
        write_table(rows, args.output)
    return 1 if unexpected else 0


if __name__ == "__main__":
    run_script(main)
