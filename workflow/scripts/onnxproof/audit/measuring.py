"""One ONNX model of a repository: looked at, aligned, measured, judged, and, where it is wrong, told why."""

import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from onnx import TensorProto

from onnxproof.audit.alignment import AlignedSession, NotAlignedError, modules_of
from onnxproof.audit.encoder_decoders import open_encoder_decoder
from onnxproof.audit.final import measure_final
from onnxproof.audit.inspection import Inspection, compare_with_promise, inspect, look_at_inputs
from onnxproof.audit.repository import OnnxModel, promised_precision
from onnxproof.audit.weights import explain_weights
from onnxproof.checkpoint.reading import Checkpoint
from onnxproof.cli import first_line
from onnxproof.files import Files, sha256_of
from onnxproof.graph.external_data import load_model, save_model
from onnxproof.graph.files import MODEL_FILE
from onnxproof.graph.generation import empty_cache
from onnxproof.graph.sessions import open_session
from onnxproof.inputs.model_inputs import LIKELIHOODS, Reference
from onnxproof.parity.gate import Verdict, judge, limits_of_few
from onnxproof.parity.measure import Measurement, Sessions, measure_sessions
from onnxproof.quantization.half_emulation import emulated
from onnxproof.records.audit import AuditedFile
from onnxproof.records.common import Limits
from onnxproof.records.parity import Judged
from onnxproof.records.reference import ReferenceRecord
from onnxproof.vocabulary import METRICS

#: The variants whose limits are applied to other precisions.
JUDGED_AS = {"bf16": "fp16"}


@dataclass(frozen=True)
class Task:
    """What all files of a repository are held to, and with.

    Attributes:
        folder: the repository.
        repository: its small files.
        original: those of the original.
        reference: what was recorded of the original.
        thresholds: the limits of each variant.
        batch_size: inputs in a padded batch.
        threads: intra-op threads.
    """

    folder: Path
    repository: Checkpoint
    original: Checkpoint
    reference: Reference[ReferenceRecord]
    thresholds: Mapping[str, Limits]
    batch_size: int
    threads: int


def audit_model(task: Task, model: OnnxModel) -> AuditedFile:
    """Return what was found in one ONNX model; whatever stops it is a finding, never an error."""
    start = time.perf_counter()
    paths = [task.folder / name for name in model.graphs.values()]
    seen = inspect(paths)
    promised = promised_precision(model.name)
    compare_with_promise(seen, promised)
    precision = promised or seen.held or "fp32"
    variant = JUDGED_AS.get(precision, precision)
    record: AuditedFile = {
        "name": model.name,
        "files": _describe(task.folder, model, seen),
        "promised": promised,
        "held": seen.held,
        "weights": seen.shares,
        "judged_as": None,
        "findings": seen.findings,
        "verdict": "not judged",
        "seconds": 0.0,
    }
    if seen.opset:
        record |= {"opset": seen.opset, "ir_version": seen.ir_version}
    if seen.is_readable and variant in task.thresholds:
        try:
            _measure(task, model, seen, variant, record)
        except NotAlignedError as error:
            seen.tell("note", "not-aligned", f"Not measured: {error}.")
    if any(each["severity"] == "wrong" for each in seen.findings):
        record["verdict"] = "wrong"
    elif record["judged_as"]:
        record["verdict"] = "sound"
    record["seconds"] = round(time.perf_counter() - start, 2)
    return record


def _describe(folder: Path, model: OnnxModel, seen: Inspection) -> Files:
    """Return size and sha256 of a model's graphs and of the files with their weights, by path."""
    places = {Path(name).parent for name in model.graphs.values()}
    names = [*model.graphs.values(), *((place / name).as_posix() for place in places for name in sorted(seen.external))]
    paths = {name: folder / name for name in names if (folder / name).is_file()}
    return {name: {"size": path.stat().st_size, "sha256": sha256_of(path)} for name, path in sorted(paths.items())}


def _measure(task: Task, model: OnnxModel, seen: Inspection, variant: str, record: AuditedFile) -> None:
    """Run a model on the recorded inputs, judge its answers, and add both to its record and its findings."""
    files = {part: task.folder / name for part, name in model.graphs.items()}
    try:
        sessions = _open(task, files)
    except NotAlignedError:
        raise
    except Exception as error:  # onnxruntime's own exceptions share no other base
        reason = first_line(error).replace(f"{task.folder}/", "")
        seen.tell("wrong", "load", f"onnxruntime cannot load it: {reason[:200]}")
        return
    session, reference = sessions.separate, _answered_by(sessions, task.reference)
    record["judged_as"] = variant
    if isinstance(session, AlignedSession):
        record["alignment"] = session.alignment
        look_at_inputs(seen, session.fed.values(), reference.inputs.items[0])
    batch_size = 1 if seen.takes_one_at_a_time else task.batch_size
    try:
        measured = measure_sessions(model.name, sessions, reference, batch_size)
        verdicts = judge(_judged(task, model, variant, measured), task.thresholds[variant])
    except Exception as error:  # a graph may answer with anything
        message = first_line(error).removeprefix(f"{model.name}: ")
        seen.tell("wrong", "run", f"Its answers cannot be compared: {message[:300]}")
        return
    record |= {
        "outputs": measured.outputs,
        "task_metrics": measured.task_metrics,
        "batch_invariance": measured.batch_invariance,
        "limits": [verdict.as_record() for verdict in verdicts],
    }
    missed = [verdict for verdict in verdicts if not verdict.passed]
    if missed:
        _explain(task, model, seen, measured, missed)
    elif variant in ("fp16", "q4f16") and isinstance(session, AlignedSession):
        _measure_in_half(task, files[MODEL_FILE], seen, variant, reference, batch_size)
    if isinstance(session, AlignedSession):
        _ask_raw_inputs(task, session, seen, variant, record)


def _open(task: Task, files: Mapping[str, Path]) -> Sessions:
    """Open the graphs of a model, and align them."""
    if MODEL_FILE in files:
        return Sessions(_aligned(task, open_session(files[MODEL_FILE], task.threads, as_written=False)))
    inputs = task.reference.inputs
    return open_encoder_decoder(files, task.threads, inputs.items[0].keys() | inputs.shared.keys())


def _aligned(task: Task, session: object) -> AlignedSession:
    first = {name: values[0] for name, values in task.reference.outputs.items() if name != LIKELIHOODS}
    modules = modules_of(task.repository, task.original)
    return AlignedSession(session, task.reference.inputs, first, modules)  # type: ignore[arg-type]


def _answered_by(sessions: Sessions, reference: Reference[ReferenceRecord]) -> Reference[ReferenceRecord]:
    """Return a reference without vectors of tokens, and without generated texts, where a model gives none."""
    session = sessions.separate
    given = {value.name for value in session.get_outputs()}
    unused = {"last_hidden_state"} - given if "sentence_embedding" in given else set()
    outputs = {name: values for name, values in reference.outputs.items() if name not in unused}
    has_cache = not isinstance(session, AlignedSession) or bool(empty_cache(session.get_inputs()))
    return replace(reference, outputs=outputs, generated=reference.generated if has_cache else {})


def _judged(task: Task, model: OnnxModel, variant: str, measured: Measurement) -> Judged:
    return {
        "model": model.name,
        "variant": variant,
        "task": task.reference.manifest["task"],
        "outputs": measured.outputs,
        "task_metrics": measured.task_metrics,
        "batch_invariance": measured.batch_invariance,
        "reference_batch_invariance": task.reference.manifest["batch_invariance"],
    }


def _explain(task: Task, model: OnnxModel, seen: Inspection, measured: Measurement, missed: list[Verdict]) -> None:
    """Tell which limits are missed, and what the measurements say about the reason."""
    batches = [verdict for verdict in missed if verdict.metric.startswith("batch_")]
    alone = [verdict for verdict in missed if verdict not in batches]
    if alone:
        seen.tell("wrong", "answers", f"Its answers are not the original's. {'; '.join(map(str, alone[:3]))}.")
    if batches:
        shown = "; ".join(map(str, batches))
        seen.tell("wrong", "batch", f"Its answer to an input depends on the other inputs of a padded batch. {shown}.")
    cosines = {name: difference["cosine_min"] for name, difference in measured.outputs.items()}
    allowed = next((verdict.allowed for verdict in missed if verdict.metric == "cosine_min"), 1.0)
    tokens, texts = cosines.get("last_hidden_state"), cosines.get("sentence_embedding")
    if tokens is not None and texts is not None and tokens >= allowed > texts:
        seen.tell("note", "why", "Its vectors of tokens are right, and those of texts are not: it pools otherwise.")
    if alone and {verdict.metric for verdict in alone} <= {"max_norm_diff", "max_relative_diff"}:
        seen.tell("note", "why", "Its vectors have the right directions and other lengths.")
    if alone and seen.held in ("fp32", "fp16") and MODEL_FILE in model.graphs:
        for reason in explain_weights(task.folder / model.name, task.original):
            seen.tell("note", "why", reason)


def _measure_in_half(
    task: Task,
    path: Path,
    seen: Inspection,
    variant: str,
    reference: Reference[ReferenceRecord],
    batch_size: int,
) -> None:
    """Judge a graph in float16 once more, as hardware computes it that has float16: a CPU shows no overflow."""
    with tempfile.TemporaryDirectory(prefix="emulated.") as scratch:
        try:
            written, emulation = Path(scratch, MODEL_FILE), emulated(load_model(path, Path(scratch)))
            for value in emulation.graph.output:
                if value.type.tensor_type.elem_type == TensorProto.FLOAT16:
                    value.type.tensor_type.elem_type = TensorProto.FLOAT
            save_model(emulation, written)
            session = _aligned(task, open_session(written, task.threads))
            measured = measure_sessions(path.name, Sessions(session), reference, batch_size)
        except Exception:  # of a graph that the emulation was not written for
            seen.tell("note", "float16", "Overflow of float16 was not looked for: this graph cannot be emulated.")
            return
    judged = _judged(task, OnnxModel({MODEL_FILE: path.name}), variant, measured)
    missed = [verdict for verdict in judge(judged, task.thresholds[variant]) if not verdict.passed]
    if missed:
        shown = "; ".join(map(str, missed[:3]))
        seen.tell("wrong", "float16", f"Computed in float16, as a GPU does it, its answers are not right. {shown}.")


def _ask_raw_inputs(task: Task, session: AlignedSession, seen: Inspection, variant: str, record: AuditedFile) -> None:
    final = task.reference.final
    width = task.original.sentence_settings.truncate_dim if task.original.modules else None
    try:
        most_tokens = task.reference.manifest["inputs"].get("max_tokens_of_model")
        metrics = measure_final(session, task.repository, final, most_tokens, width)
    except Exception as error:  # whatever a repository's tokenizer or graph stops at is the finding
        seen.tell("wrong", "raw-inputs", f"A raw input cannot be answered: {first_line(error)[:200]}")
        return
    if metrics is None or final is None:
        return
    record["final"] = {"inputs": len(final.inputs), "metrics": metrics}
    if any(each["severity"] == "wrong" for each in seen.findings):
        return  # and so raw inputs get other answers too
    judged = {metric: limit for metric, limit in task.thresholds[variant].items() if limit is not None}
    limits = limits_of_few(judged, len(final.inputs))
    verdicts = [
        Verdict(metric, value, limits[metric], METRICS[metric].bound == "at least")
        for metric, value in metrics.items()
        if metric in limits
    ]
    missed = [verdict for verdict in verdicts if not verdict.passed]
    if missed:
        shown = "; ".join(map(str, missed[:3]))
        seen.tell("wrong", "raw-inputs", f"With the files beside it, raw inputs get other answers. {shown}.")
