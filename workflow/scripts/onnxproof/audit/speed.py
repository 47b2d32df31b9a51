"""How fast the files of a repository are: each timed in turns with the original in PyTorch and with its own fp32 file.

All get the same inputs, drawn as the benchmark draws them, under the names that the alignment has for those of a graph.
A file that cannot be timed says why, and the others are timed.
"""

import contextlib
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

from onnxproof.audit.alignment import MADE
from onnxproof.audit.measuring import Task
from onnxproof.audit.repository import OnnxModel, finding, has_optimums_name
from onnxproof.benchmark import timing
from onnxproof.benchmark.timing import Case, Contender, Effort, ModelSizes, Worker
from onnxproof.checkpoint.reading import CONFIG
from onnxproof.cli import UserError, first_line
from onnxproof.graph.files import DECODER_FILE, ENCODER_FILE, MODEL_FILE
from onnxproof.hardware import available_cores, cpu_description
from onnxproof.records.audit import AuditedFile, AuditTiming, Finding, SpeedCase, TimesFaster

#: Inputs in a call, and the most tokens of each.
BATCH_SIZES, MOST_TOKENS = [1, 8], 128
PYTORCH = "pytorch"


def time_files(
    task: Task, models: Sequence[OnnxModel], files: Sequence[AuditedFile], effort: Effort
) -> tuple[AuditTiming | None, list[Finding]]:
    """Time each file that could be run, and add its times to its record.

    Args:
        task: what the files were held to.
        models: the ONNX models of a repository.
        files: what was found in each of them, in the same order.
        effort: how often to repeat.

    Returns:
        With what they were timed, None where none could be; and why the original, or none, could be.
    """
    runnable = {file["name"]: (model, file) for model, file in zip(models, files, strict=True) if "outputs" in file}
    fp32 = own_fp32(file for _, file in runnable.values())
    found: list[Finding] = []
    try:
        sizes = timing.read_model_sizes(task.original.transformer_folder / CONFIG)
    except UserError as error:
        return None, [finding("note", "speed", f"No inputs can be drawn for the original: {first_line(error)[:300]}")]
    cases = timing.choose_cases(sizes, BATCH_SIZES, [min(MOST_TOKENS, sizes.max_tokens or MOST_TOKENS)])
    with contextlib.ExitStack() as stack:
        others: dict[str, Worker] = {}
        try:
            others[PYTORCH] = stack.enter_context(Worker(_original(task), task.threads))
        except UserError as error:
            found.append(finding("note", "speed", f"The original was not timed: {first_line(error)[:300]}"))
        if fp32 is not None:
            with contextlib.suppress(UserError):  # told where its own turn comes
                others[fp32] = stack.enter_context(Worker(contender_of(task, *runnable[fp32]), task.threads))
        for name, (model, file) in runnable.items():
            rivals = {other: worker for other, worker in others.items() if other != name}
            with contextlib.ExitStack() as own:
                try:
                    worker = others.get(name) or own.enter_context(
                        Worker(contender_of(task, model, file), task.threads)
                    )
                except UserError as error:
                    file["findings"].append(finding("note", "speed", f"Not timed: {first_line(error)[:300]}"))
                    continue
                for case in cases:
                    _time_case(file, worker, rivals, case, sizes, task.threads, effort)
            print(f"{name}: {len(file.get('speed', []))} of {len(cases)} shapes timed", flush=True)
        dtype = others[PYTORCH].loaded["dtype"] if PYTORCH in others else None
    described: AuditTiming = {
        "cpu": {**cpu_description(), "available_cores": available_cores()},
        "fp32": fp32,
        "pytorch_dtype": dtype,
        "warmup": effort.warmup,
        "rounds": effort.rounds,
        "iterations": effort.iterations,
        "seconds_per_case": effort.seconds_per_case,
        "seed": effort.seed,
    }
    return described, found


def own_fp32(files: Iterable[AuditedFile]) -> str | None:
    """Return the name of the sound fp32 file that the others are compared with: a plain ``model.onnx`` first."""
    plain = (MODEL_FILE, ENCODER_FILE)
    sound = [file["name"] for file in files if file["held"] == "fp32" and file["verdict"] == "sound"]
    return min(sound, key=lambda name: (PurePosixPath(name).name not in plain, name), default=None)


def _original(task: Task) -> Contender:
    assert task.original.folder is not None
    reference = task.reference.manifest
    return Contender(reference["model"], PYTORCH, "pytorch", task.original.folder, reference["task"])


def contender_of(task: Task, model: OnnxModel, file: AuditedFile) -> Contender:
    """Return a file as the benchmark times it: its graphs, and the original's names of their inputs.

    Raises:
        UserError: the benchmark does not run it: its only decoder is a merged one, or its graphs are not Optimum's.
    """
    if ENCODER_FILE in model.graphs and not all(map(has_optimums_name, model.graphs.values())):
        raise UserError("an encoder and a decoder under other names than Optimum's are not timed")
    if ENCODER_FILE in model.graphs and DECODER_FILE not in model.graphs:
        raise UserError("a merged decoder is not timed, and there is no other")
    fed = file["alignment"]["inputs"] if "alignment" in file else {}
    names = {theirs: ours.removeprefix(MADE) for theirs, ours in fed.items()}
    options = {"graphs": model.graphs, "names": names}
    return Contender(task.reference.manifest["model"], file["name"], "onnx", task.folder, options=options)


def _time_case(
    file: AuditedFile,
    worker: Worker,
    others: dict[str, Worker],
    case: Case,
    sizes: ModelSizes,
    threads: int,
    effort: Effort,
) -> None:
    """Time one shape of inputs in turns with others, and add the times, or why there are none, to a file's record."""
    workers = [worker, *others.values()]
    try:
        timing.prepare_case(workers, case, sizes, effort.seed)
        own, *theirs = timing.time_in_turns(workers, effort)
    except UserError as error:
        file["findings"].append(finding("note", "speed", f"Not timed at {case}: {first_line(error)[:300]}"))
        return
    compared: dict[str, TimesFaster] = {}
    for name, rounds in zip(others, theirs, strict=True):
        speedup = timing.compare(own, rounds)
        compared[name] = {
            "median": speedup["speedup_vs_fp32"],
            "quartiles": speedup["speedup_iqr"],
            "p50_ms": timing.summarize(case.batch, rounds)["p50_ms"],
        }
    timed: SpeedCase = {
        "batch": case.batch,
        "sequence": case.sequence,
        "intra_op_threads": threads,
        **timing.summarize(case.batch, own),
        "times_faster": compared,
        "samples_ms": own,
    }
    file["speed"] = [*file.get("speed", []), timed]
