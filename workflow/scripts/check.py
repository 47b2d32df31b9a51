"""Say what a model is, what would be made of it at which cost, and what is in the way: from its small files alone.

Nothing is exported and no weights are fetched or loaded; torch is not imported. The status is 1 where something is in
the way.
"""

import argparse
import contextlib
import json
import math
import sys
import tempfile
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any, cast

from download import build_retry, check_hub_request, check_small_files, fetch_file, list_repository, size_and_checksum
from onnxproof.checkpoint.inference import check_architecture, tasks_of_config
from onnxproof.checkpoint.layout import needed_files
from onnxproof.checkpoint.problem import ProblemError
from onnxproof.checkpoint.reading import Checkpoint
from onnxproof.checkpoint.snapshot import problems_of
from onnxproof.checkpoint.text_limits import most_tokens, text_settings
from onnxproof.checkpoint.untrusted import stays_inside
from onnxproof.cli import UserError, run_script
from onnxproof.config.named import ALLOWED, NO_FOLDER, NamedSource, find_source, name_of
from onnxproof.config.resolve import resolve_models
from onnxproof.engine.resources import (
    BYTES_PER_MB,
    BYTES_PER_PARAMETER,
    MEMORY,
    WEIGHT_SUFFIXES,
    estimate_cpu_minutes,
    estimate_disk_mb,
    estimate_memory_mb,
    jobs_of_chain,
)
from onnxproof.files import read_json
from onnxproof.records.check import CheckedModel, Cost
from onnxproof.tasks.heads import count_labels, takes_pairs
from onnxproof.tasks.model_types import model_takes
from onnxproof.tasks.registry import TASKS
from release import copied_files, released_files

#: Bytes a parameter, by the names that ``config.json`` has for its type.
TYPE_BYTES = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8}
ATTEMPTS, LONGEST_WAIT_S = 3, 30.0


def check(model: str, checkpoint: Checkpoint, settings: Mapping[str, Any]) -> CheckedModel:
    """Return what can be said of a model without its weights.

    Args:
        model: its name, for messages.
        checkpoint: its files.
        settings: ``task``, ``exporter``, ``variants``, ``benchmark``, ``allow_pickle`` and ``allow_remote_code`` of the
            configuration.
    """
    problems = list(problems_of(checkpoint, settings["allow_pickle"], settings["allow_remote_code"]))
    try:
        config = checkpoint.config
        tasks = tasks_of_config(config, checkpoint.kind == "SentenceTransformer")
    except (ProblemError, TypeError, AttributeError):  # told above
        return {"model": model, "problems": problems}
    if not checkpoint.has_own_code and not problems:
        try:
            check_architecture(model, config, checkpoint.kind == "SentenceTransformer")
        except UserError as error:
            problems.append(str(error).removeprefix(f"{model}: "))
    asked = settings.get("task")
    same = [name for name in tasks if asked in (name, *TASKS[name].optimum)]
    task = next(iter(same if asked else tasks), None)
    if asked and tasks and task is None:
        problems.append(f"models.{model}.task is '{asked}', but it serves only: {', '.join(tasks)}")
    parameters, stored = count_parameters(checkpoint)
    shipped = released_files(settings["variants"])
    copied = copied_files(shipped) if settings["release"]["copies"] else {}
    described = {
        "model": model,
        "model_type": config.get("model_type"),
        "architectures": config.get("architectures"),
        "task": task,
        "takes": model_takes(config.get("model_type")),
        "parameters": parameters,
        "dtype": stored,
        "max_tokens": limit_of(checkpoint),
        "labels": meaning_of_labels(config) if task and "classification" in task else None,
        "encode": encode_settings(checkpoint) if checkpoint.kind == "SentenceTransformer" else None,
        "exporter": settings["exporter"],
        "files": sorted([*shipped.values(), *copied.values()]),
        "cost": cost_of(parameters * BYTES_PER_PARAMETER / BYTES_PER_MB, settings),
        "problems": problems,
    }
    return cast(CheckedModel, {key: value for key, value in described.items() if value is not None})


def count_parameters(checkpoint: Checkpoint) -> tuple[int, str]:
    """Return how many parameters a model has and in which type they are saved, from headers, or from sizes."""
    if checkpoint.tensors:
        kinds = [kind for kind, _ in checkpoint.tensors.values()]
        return sum(math.prod(shape) for _, shape in checkpoint.tensors.values()), max(set(kinds), key=kinds.count)
    config = checkpoint.config
    dtype = str(config.get("dtype") or config.get("torch_dtype") or "float32")
    stored = sum(checkpoint.size(name) for name in checkpoint.weight_files if checkpoint.has(name))
    return stored // TYPE_BYTES.get(dtype, BYTES_PER_PARAMETER), dtype


def limit_of(checkpoint: Checkpoint) -> int | None:
    """Return where the model cuts a text, in tokens, as far as its files say; None where they do not, or of no text."""
    config = checkpoint.config
    if model_takes(config.get("model_type")) not in ("text", "image+prompt"):
        return None
    limits = [most_tokens(text_settings(config)), checkpoint.transformer_settings.get("max_seq_length")]
    limits.append(checkpoint.tokenizer_config.get("model_max_length"))
    known = [int(limit) for limit in limits if isinstance(limit, int | float) and 0 < limit < 1e12]
    return min(known, default=None)


def meaning_of_labels(config: Mapping[str, Any]) -> str:
    """Return in words what the values of a classifier's head mean."""
    count = count_labels(dict(config))
    names = ", ".join(str(name) for name in (config.get("id2label") or {}).values())
    shown = f": {names}" if names and len(names) < 200 else ""
    kind = config.get("problem_type")
    if kind == "multi_label_classification":
        return f"{count} labels, each by itself (sigmoid){shown}"
    if kind == "regression":
        return f"{count} numbers, as they are{shown}"
    if takes_pairs(dict(config)) and count == 1:
        return "one score of a pair of texts"
    return f"one of {count} classes (softmax){shown}"


def encode_settings(checkpoint: Checkpoint) -> str:
    """Return in words what ``encode()`` applies beside the transformer."""
    settings = checkpoint.sentence_settings
    words = [" → ".join(module.kind for module in checkpoint.modules), f"compared by {settings.similarity}"]
    words += [f"cut to {settings.truncate_dim} values"] if settings.truncate_dim else []
    words += [f"with the prompt {settings.default_prompt!r}"] if settings.default_prompt else []
    return "; ".join(words)


def cost_of(weights_mb: float, settings: Mapping[str, Any]) -> Cost:
    """Return about what the chain takes: minutes of one core, the largest memory of a step, disk in all."""
    minutes = estimate_cpu_minutes(weights_mb, settings["variants"], settings["benchmark"])
    rules = set(jobs_of_chain(settings["variants"], settings["benchmark"]["pytorch"]))
    return {
        "cpu_minutes": round(minutes, 1) if minutes < 10 else round(minutes),
        "memory_mb": max(estimate_memory_mb(rule, weights_mb) for rule in rules if rule in MEMORY),
        "disk_mb": sum(estimate_disk_mb(rule, weights_mb) for rule in rules),
    }


# Where the files are


def check_source(model: str, settings: Mapping[str, Any]) -> CheckedModel:
    """Check a model where its source says that it is; its small files are fetched where that is the Hub.

    Raises:
        UserError: the source cannot be reached.
    """
    source = settings["source"]
    if "hub" not in source:
        folder = folder_of(source)
        if not folder.is_dir():
            raise UserError(f"{model}: {folder}: there is no such folder")
        return check(model, Checkpoint(folder), settings)
    with tempfile.TemporaryDirectory(prefix="onnxproof-check-") as scratch:
        checkpoint = fetch_small_files(model, source, settings, Path(scratch))
        return check(model, checkpoint, settings)


def folder_of(source: Mapping[str, Any]) -> Path:
    """Return the folder of a local source."""
    if "package" not in source:
        return Path(source["path"])
    try:
        return Path(str(distribution(source["package"]).locate_file(source["path"])))
    except (PackageNotFoundError, ValueError):
        raise UserError(f"the package '{source['package']}' is not installed; install it, pinned") from None


def fetch_small_files(model: str, source: Mapping[str, Any], settings: Mapping[str, Any], folder: Path) -> Checkpoint:
    """Fetch everything of a Hub repository but its weights, each file verified, and return what it says."""
    from huggingface_hub import constants

    repo, revision = source["hub"], source.get("revision")
    floating = bool(settings.get("allow_floating_revision"))
    check_hub_request(model, repo, revision, floating, offline=constants.HF_HUB_OFFLINE)
    retry = build_retry(ATTEMPTS, LONGEST_WAIT_S)
    commit, listed = list_repository(model, repo, revision, retry)
    sizes = {name: size_and_checksum(model, repo, each)[0] for name, each in listed.items() if stays_inside(name)}
    small = [name for name in needed_files(listed) if not name.endswith(WEIGHT_SUFFIXES)]
    check_small_files(model, f"{repo} at {commit}", {name: sizes[name] for name in small})
    for name in small:
        fetch_file(model, repo, commit, listed[name], folder / name, retry)
    return Checkpoint(folder, sizes=sizes)


def report(found: CheckedModel) -> str:
    """Return what was found as lines for a terminal."""
    lines = [found["model"]]
    if "model_type" in found:
        architectures = ", ".join(found.get("architectures") or ["no architecture named"])
        lines.append(f"  model       {found['model_type']}, {architectures}; takes {found['takes']}")
        lines.append(f"  task        {found.get('task', 'none that is served')}")
        lines.append(f"  size        {found['parameters'] / 1e6:.1f} million parameters, {found['dtype']}")
        lines += [f"  length      {found['max_tokens']} tokens at most"] if "max_tokens" in found else []
        lines += [f"  answers     {found['labels']}"] if "labels" in found else []
        lines += [f"  answers     {found['encode']}"] if "encode" in found else []
        cost = found["cost"]
        lines.append(f"  release     {', '.join(found['files'])}; exporter: {found['exporter']}")
        lines.append(
            f"  cost        {cost['memory_mb'] / 1000:.1f} GB of memory, {cost['disk_mb'] / 1000:.1f} GB of disk; "
            f"about {cost['cpu_minutes']} minutes of one core"
        )
    lines += [f"  in the way  {problem}" for problem in found["problems"]] or ["  nothing is in the way"]
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Parse the command line, print what was found, and return 1 where something is in the way of a model."""
    parser = argparse.ArgumentParser(description=__doc__)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("model", nargs="?", metavar="MODEL", help=ALLOWED)
    source.add_argument("--hub", metavar="REPO", help="repository on the Hugging Face Hub, as owner/name")
    source.add_argument("--models", metavar="FILE", type=Path, help="JSON file with the settings of each model")
    parser.add_argument("--revision", metavar="COMMIT", help="commit, branch or tag of the repository (default: main)")
    parser.add_argument("--task", choices=sorted(TASKS), help="the task to check for (default: inferred)")
    parser.add_argument("--json", action="store_true", help="print JSON in place of text")
    args = parser.parse_args(argv)
    found: list[CheckedModel] = []
    models: dict[str, Any] = {}
    if args.models:
        models = read_json(args.models)
    else:
        try:
            place: NamedSource = {"hub": args.hub} if args.hub else find_source(args.model)
        except UserError as error:
            found.append({"model": args.model, "problems": [str(error).removeprefix(f"{args.model}: ")]})
        else:
            if args.revision and "hub" not in place:
                parser.error("--revision belongs to a model on the Hub")
            if args.revision:
                place["revision"] = args.revision
            asked = {"task": args.task} if args.task else {}
            name = name_of(args.hub or args.model, place)
            models = resolve_models({"models": {name: {"source": place, "allow_floating_revision": True} | asked}})
    for model, settings in models.items():
        try:
            with contextlib.redirect_stdout(sys.stderr):  # how a download goes on is no part of the answer
                found.append(check_source(model, settings))
        except UserError as error:
            hint = NO_FOLDER.format(args.model) if args.model and "hub" in settings["source"] else ""
            found.append({"model": model, "problems": [str(error).removeprefix(f"{model}: ") + hint]})
    print(json.dumps(found, indent=2, ensure_ascii=False) if args.json else "\n\n".join(map(report, found)))
    return 1 if any(each["problems"] for each in found) else 0


if __name__ == "__main__":
    run_script(main)
