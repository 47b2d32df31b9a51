"""Needs: the configuration. Makes: the checked, resolved settings of every model, and the helpers of the rules."""

import importlib.metadata
import inspect
import json
import math
import os
import re
import sys
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

from snakemake.exceptions import WorkflowError

if not isinstance(workflow.current_basedir, os.PathLike):
    raise WorkflowError(
        "the module's snakefile is an address, must be a path on this machine: the rules start the scripts beside it; "
        "clone onnxproof and give the path of its Snakefile"
    )

# Not `basedir`, which is the caller's folder where this workflow is a module of another.
sys.path.insert(0, str(Path(workflow.current_basedir).parent / "scripts"))

from onnxproof.cli import UserError
from onnxproof.config.labelled import files_named
from onnxproof.config.lists import load_models
from onnxproof.config.machines import check_machines
from onnxproof.config.yaml_text import check_yaml_text
from onnxproof.engine.code_digest import digest_of_files, digest_of_scripts, digest_of_texts, remember_facts
from onnxproof.engine.name_pattern import any_of
from onnxproof.engine.patches import forget_removed_folders, plan_with_less_work
from onnxproof.engine.resources import (
    estimate_disk_mb,
    estimate_memory_mb,
    estimate_minutes,
    estimate_threads,
    weights_mb,
)
from onnxproof.places import PROJECT, RESOURCES, SCRIPTS
from onnxproof.vocabulary import CPU_PROVIDER, MADE_OF, PYTORCH, QUANTIZED_VARIANTS, SEARCHED_LIKE, VARIANTS

# Whatever --cores says: other threads add up in another order, and the recorded bytes must not depend on that. One,
# because there is always another job for the next core, and two threads of one job wait for each other: on a busy
# machine PyTorch took five times the CPU time with two.
PARITY_THREADS = 1
#: Export, optimization and quantization wait for one another, and the other jobs for them: they come first. Benchmarks
#: have all cores for themselves: they come one after another, so that only one of them waits for cores to become free.
CHAIN_PRIORITY = 1
#: Of so few models all jobs that import PyTorch come before the others, so that the process that forks them has ended
#: when recipes are searched for. Of more models, all would be downloaded before anything else is made.
FEW_MODELS = 8
CONFIG_FILE = Path("config.yaml")
#: Whether another workflow uses this one. It then passes its configuration, and Snakemake leaves out the hooks.
IS_MODULE = not workflow.modifier.is_main_snakefile()
if not IS_MODULE:
    plan_with_less_work(workflow.storage_settings.default_storage_provider is not None)
    forget_removed_folders()
    remember_facts(Path(".snakemake/onnxproof.code.json"))


def checked(check, *arguments):
    """Return what a check of the user's input returns; its complaint becomes Snakemake's, without a traceback."""
    try:
        return check(*arguments)
    except UserError as error:
        raise WorkflowError(str(error)) from None


# A cluster's jobs read what the process that submitted them has checked.
if CONFIG_FILE.is_file() and workflow.is_main_process and not IS_MODULE:
    checked(check_yaml_text, CONFIG_FILE)


configfile: CONFIG_FILE


MODELS = checked(load_models, config, Path.cwd(), workflow.is_main_process)
#: More jobs wait for an export, and for its download, than for a reference.
PYTORCH_PRIORITY, DOWNLOAD_PRIORITY = (2, 3) if len(MODELS) <= FEW_MODELS else (0, 0)


#: The models that have a repository to be published to.
PUBLISHED = [model for model, settings in MODELS.items() if settings["publish"]["repo"]]


#: The kinds of machines that any model is to be measured on.
MACHINES = sorted({machine for settings in MODELS.values() for machine in settings["benchmark"]["machines"]})
#: The names of the audits of all models.
AUDITS = sorted({audit for settings in MODELS.values() for audit in settings["audits"]})
MATCHES_NOTHING = "(?!)"


# The image of the Dockerfile, which holds what the environments beside it hold; only `--sdm apptainer` uses it.
container: os.path.relpath(PROJECT / "envs" / "onnxproof.sif")


wildcard_constraints:
    model=any_of(MODELS),
    machine="|".join(map(re.escape, MACHINES)) or MATCHES_NOTHING,
    audit="|".join(map(re.escape, AUDITS)) or MATCHES_NOTHING,
    variant="|".join(VARIANTS),
    quantized="|".join(QUANTIZED_VARIANTS),
    shape="[0-9]+(x[0-9]+)*",
    provider="[A-Za-z]+ExecutionProvider",


def resource_path(path: str | Path) -> str:
    """Return a resource's path relative to the working directory: moving both changes no rule's inputs.

    It stays a local file where results go to a storage provider or below the prefix of a module.
    """
    return local(os.path.relpath(RESOURCES / path))


def script_path(script: str) -> str:
    """Return a script's path relative to the working directory; as a parameter it costs the plan no look at the disk."""
    return os.path.relpath(SCRIPTS / f"{script}.py")


def script_digest(*scripts: str) -> str:
    """Return the sha256 of what scripts and the helper modules they import do: a rule reruns when that changes.

    Comments, docstrings and messages do not count. The digest is a parameter, because two dozen files as inputs of
    every job would be a quarter of the work of planning them.
    """
    return digest_of_scripts(*scripts)


@cache
def results_folder() -> Path:
    """Return the folder of all results, below the prefix of a module, but not below that of a storage provider."""
    table = rules.summary.output.csv
    if table.is_storage:
        return Path(table.storage_object.query.removeprefix(storage_prefix())).parent
    return Path(table).parent


def storage_prefix() -> str:
    """Return what begins the address of all files in object storage, or nothing where they are on a disk."""
    prefix = workflow.storage_settings.default_storage_prefix
    return f"{prefix.rstrip('/')}/" if prefix else ""


def size_mb(model: str) -> float:
    """Return the size of a model's weights in MB, as far as it is known on this machine.

    Where results go to object storage, their manifests do not tell it here, and the plan asks the Hub.
    """
    ask_hub = workflow.is_main_process and bool(workflow.storage_settings.default_storage_provider)
    return weights_mb(model, MODELS[model]["source"], results_folder(), ask_hub)


def mem_mb(rule, wildcards, attempt) -> int:
    """Return the memory that a job needs for its model, more with each attempt."""
    return estimate_memory_mb(rule, size_mb(wildcards.model), attempt, workflow.non_local_exec)


def download_mem_mb(wildcards, attempt) -> int:
    """Return the memory that a download needs: it holds nothing but pickles, which it writes anew as safetensors."""
    settings = MODELS[wildcards.model]
    kind = "download" if "hub" in settings["source"] else "download_local"
    if settings["allow_pickle"]:
        kind = "download_pickle"
    return mem_mb(kind, wildcards, attempt)


def disk_mb(rule, wildcards) -> int:
    """Return the room that a job's files need."""
    return estimate_disk_mb(rule, size_mb(wildcards.model))


def runtime(rule, wildcards, attempt) -> int:
    """Return the minutes after which a job has surely come to a halt, more with each attempt."""
    return estimate_minutes(rule, size_mb(wildcards.model), attempt)


def needs(rule: str) -> dict[str, partial]:
    """Return the resources of a rule. It is named, because a caller of this module may have given it another name."""
    return {each.__name__: with_signature(partial(each, rule)) for each in (mem_mb, disk_mb, runtime)}


def with_signature(function: Callable) -> Callable:
    """Keep the signature of a function with it: Snakemake asks for it several times a job, a tenth of the planning."""
    function.__signature__ = inspect.signature(function)
    return function


def check_places() -> None:
    """Refuse kinds of machines that this run cannot tell apart: once it is known where its jobs go, and not for a plan."""
    if workflow.executor_plugin is not None and not workflow.dryrun and workflow.is_main_process:
        overridden = workflow.resource_settings.overwrite_resources
        checked(check_machines, MODELS, config, workflow.non_local_exec, overridden)


def node_kind(wildcards) -> str | None:
    """Return the kind of machine that a benchmark is for: the one in its path, else the first of its model's."""
    if IS_MODULE and MACHINES:
        check_places()
    return wildcards.get("machine") or next(iter(MODELS[wildcards.model]["benchmark"]["machines"]), None)


#: What Slurm and Kubernetes call it. Without kinds to choose from, what a profile asks for is left as it is.
NODE_KIND = {"constraint": node_kind, "machine_type": node_kind} if MACHINES else {}


def further_machines(model: str) -> list[str]:
    """Return the kinds of machines whose measurements lie in folders of their own: all but the first."""
    return MODELS[model]["benchmark"]["machines"][1:]


def quantized_from(wildcards) -> str:
    """Return the folder of the graph that a quantized variant is made of."""
    return f"results/{wildcards.model}/onnx/{MADE_OF.get(wildcards.quantized, 'optimized')}"


def manifest_quantized_from(wildcards) -> str:
    """Return the manifest of that graph."""
    return f"{quantized_from(wildcards)}.json"


def searched_before(wildcards) -> list[str]:
    """Return what the search of another variant has found out, and that variant, where this one's search can use it.

    A recipe does not depend on them, only the time that it takes to find: where they are newer, nothing runs again.
    """
    other = SEARCHED_LIKE.get(wildcards.quantized)
    if other not in MODELS[wildcards.model]["variants"]:
        return []
    folder = f"results/{wildcards.model}/onnx/{other}"
    return [ancient(f"{folder}.search.safetensors"), ancient(folder)]


def known_argument(wildcards, input) -> list[str]:
    """Return the option that shows these to the search, where there are any."""
    return ["--known", *input.known] if input.known else []


def cores_or(others: float) -> float:
    """Return the number of cores; ``others`` where jobs go to other machines and no number was given."""
    try:
        return workflow.cores
    except WorkflowError:
        return others


def search_threads(wildcards) -> int:
    """Return the threads of the search for a recipe; its bytes do not depend on them."""
    return estimate_threads(size_mb(wildcards.model), cores_or(math.inf))


def variant_files(pattern: str, variants: tuple[str, ...], models=tuple(MODELS)) -> list[str]:
    """Return the pattern filled in for each model and those of its configured variants that are asked for."""
    return [
        pattern.format(model=model, variant=variant)
        for model in models
        for variant in MODELS[model]["variants"]
        if variant in variants
    ]


def benchmark_files(models) -> list[str]:
    """Return the benchmarks of all configured variants, and of PyTorch where it is to be timed too, on each machine."""
    return [
        f"results/{model}/benchmark/{folder}{variant}.json"
        for model in models
        for variant in [*MODELS[model]["variants"], *([PYTORCH] if MODELS[model]["benchmark"]["pytorch"] else [])]
        for folder in ["", *(f"{machine}/" for machine in further_machines(model))]
    ]


def other_providers(model: str) -> list[str]:
    """Return the execution providers that a model's files are timed with, beside that of the CPU."""
    return [provider for provider in MODELS[model]["benchmark"]["providers"] if provider != CPU_PROVIDER]


def provider_files(models) -> list[str]:
    """Return the parity of all configured variants with each execution provider that they are timed with."""
    return [
        f"results/{model}/parity/{provider}/{variant}.json"
        for model in models
        for variant in MODELS[model]["variants"]
        for provider in other_providers(model)
    ]


def provider_argument(wildcards) -> list[str]:
    """Return the option that names the execution provider in a path, where there is one."""
    return ["--provider", wildcards.provider] if "provider" in wildcards.keys() else []


def audit_files(pattern: str) -> list[str]:
    """Return the pattern filled in for each audit that a model has."""
    return [pattern.format(model=model, audit=audit) for model in MODELS for audit in MODELS[model]["audits"]]


def audited_files(wildcards) -> list[str]:
    """Return the files of an audited folder, so that an edit there is noticed; none of a repository of the Hub."""
    folder = MODELS[wildcards.model]["audits"][wildcards.audit].get("path")
    return [local(str(path)) for path in sorted(Path(folder).rglob("*")) if path.is_file()] if folder else []


def audited_place(wildcards) -> list[str]:
    """Return the words of a command that name an audited folder or repository."""
    place = MODELS[wildcards.model]["audits"][wildcards.audit]
    return [place["path"]] if "path" in place else [place["hub"], "--revision", place["revision"]]


def all_thresholds(wildcards) -> str:
    """Return, as JSON, the limits of all variants of a model."""
    return json.dumps(MODELS[wildcards.model]["parity"]["thresholds"])


def task_argument(wildcards) -> list[str]:
    """Return the option that names the task, where the configuration does."""
    task = MODELS[wildcards.model]["task"]
    return ["--task", task] if task else []


def exporter(wildcards) -> str:
    """Return which exporter a model is configured to have."""
    return MODELS[wildcards.model]["exporter"]


def local_files(wildcards) -> list[str]:
    """Return the files of a local source folder, so that an edit there is noticed."""
    source = MODELS[wildcards.model]["source"]
    if "hub" in source or "package" in source:
        return []
    return [local(str(path)) for path in sorted(Path(source["path"]).rglob("*")) if path.is_file()]


def source_arguments(wildcards) -> list[str]:
    """Return the options that name a model's source."""
    settings = MODELS[wildcards.model]
    source = settings["source"]
    pickle = ["--allow-pickle"] if settings["allow_pickle"] else []
    if "package" in source:
        return ["--package", source["package"], "--package-path", source["path"], *pickle]
    if "path" in source:
        return ["--path", source["path"], *pickle]
    revision = ["--revision", source["revision"]] if "revision" in source else []
    floating = ["--allow-floating-revision"] if settings["allow_floating_revision"] else []
    code = ["--allow-remote-code"] if settings["allow_remote_code"] else []
    return ["--hub", source["hub"], *revision, *floating, *pickle, *code]


def package_version(wildcards) -> str | None:
    """Return the installed version of a packaged source: another version is another source."""
    package = MODELS[wildcards.model]["source"].get("package")
    return importlib.metadata.version(package) if package else None


def evaluation_texts(wildcards) -> list[str]:
    """Return the configured evaluation texts of a model; none stands for the bundled ones."""
    texts = MODELS[wildcards.model]["parity"]["evaluation_texts"]
    return [local(texts) if texts else resource_path("evaluation_texts.jsonl")]


def calibration_texts(wildcards) -> list[str]:
    """Return the configured calibration texts of a model; none stands for the bundled ones."""
    texts = MODELS[wildcards.model]["quantization"]["calibration_texts"]
    return [local(texts) if texts else resource_path("calibration_texts.jsonl")]


def parity_batch_size(wildcards) -> int:
    """Return how many texts share a padded batch; Snakemake's `lookup` would walk through all models for it."""
    return MODELS[wildcards.model]["parity"]["batch_size"]


def evaluation_of(model: str) -> dict:
    """Return what the configuration says of a model's labelled data; empty where it names none."""
    return MODELS[model]["evaluation"] or {}


def labelled_data(wildcards) -> list[str]:
    """Return the labelled data of a model: the user's own file, or the copy of one on the Hub."""
    evaluation = evaluation_of(wildcards.model)
    if "data" in evaluation:
        return [local(evaluation["data"])]
    return [f"results/{wildcards.model}/evaluation/data{Path(evaluation['file']).suffix}"] if evaluation else []


def evaluation_documents(wildcards) -> list[str]:
    """Return the documents that a model's queries are looked for in, where the configuration names them."""
    documents = evaluation_of(wildcards.model).get("documents")
    return [local(documents)] if documents else []


def files_of_evaluation(wildcards) -> list[str]:
    """Return the images and sounds that the labelled data of a model name."""
    data = evaluation_of(wildcards.model).get("data")
    return [local(str(path)) for path in checked(files_named, Path(data))] if data else []


def documents_argument(wildcards) -> list[str]:
    """Return the option that names the documents, where there are any."""
    documents = evaluation_of(wildcards.model).get("documents")
    return ["--documents", documents] if documents else []


def evaluation_settings(wildcards) -> str:
    """Return, as JSON, how the rows of a model's labelled data are read and what is measured."""
    return settings_of_evaluation(wildcards.model, "new_tokens")


def search_settings(wildcards) -> str:
    """Return, as JSON, how these rows are read, and what a recipe must keep on those that are kept aside."""
    return settings_of_evaluation(wildcards.model, "not_worse_by")


def settings_of_evaluation(model: str, *further: str) -> str:
    """Return, as JSON, how the rows of a model's labelled data are read, and further keys."""
    evaluation = evaluation_of(model)
    keys = ("task", "input", "label", "labels", "metric", "max_inputs", "search_share", *further)
    return json.dumps({key: evaluation[key] for key in keys if key in evaluation})


def rows_for_search(wildcards) -> list[str]:
    """Return the labelled rows that are kept aside for the search for a recipe, where the configuration asks for that."""
    share = evaluation_of(wildcards.model).get("search_share")
    return [f"results/{wildcards.model}/evaluation/kept_aside.json"] if share else []


def labelled_argument(wildcards, input) -> list[str]:
    """Return the option that shows these rows to the search, where there are any."""
    return ["--labelled", *input.labelled] if input.labelled else []


def dataset_arguments(wildcards) -> list[str]:
    """Return the options that name a file of a dataset on the Hub."""
    evaluation = evaluation_of(wildcards.model)
    return [f"--{key}={evaluation[key]}" for key in ("hub", "revision", "file") if key in evaluation]


def worse_argument(wildcards) -> list[str]:
    """Return the option that says how much worse than the original a variant may be; none for the metric's own."""
    limit = evaluation_of(wildcards.model).get("not_worse_by")
    return [] if limit is None else [f"--not-worse-by={limit}"]


def evaluated(model: str) -> list[str]:
    """Return the variants of a model that are evaluated on labelled data: all, where it has any."""
    return MODELS[model]["variants"] if evaluation_of(model) else []


def evaluation_gates() -> list[str]:
    """Return the files that exist only where the variants of the models with labelled data passed their gates."""
    return [f"results/{model}/evaluation/{variant}.ok" for model in MODELS for variant in evaluated(model)]


def evaluation_records(wildcards) -> list[str]:
    """Return what a model's variants are worth on its labelled data, where it has any."""
    return [f"results/{wildcards.model}/evaluation/{variant}.json" for variant in evaluated(wildcards.model)]


def evaluation_scores(wildcards) -> list[str]:
    """Return what a release tells of how its model was evaluated, input by input, where it was."""
    files = [f"results/{wildcards.model}/evaluation/{variant}.jsonl" for variant in evaluated(wildcards.model)]
    return [f"results/{wildcards.model}/evaluation/answers/pytorch.json", *files] if files else []


def shipped_digest(wildcards) -> str:
    """Return the sha256 of the modules that a release carries: with labelled data, those that measure on them too."""
    return digest_of_texts("verify_release", *(["onnxproof/release/quality"] if evaluated(wildcards.model) else []))


def evaluation_argument(wildcards) -> list[str]:
    """Return the option by which a release is judged on labelled data and tells of them, where a model has any."""
    evaluation = evaluation_of(wildcards.model)
    return ["--evaluation", json.dumps(evaluation)] if evaluation else []


def browser_variants(wildcards) -> list[str]:
    """Return the files and manifests of a model's variants."""
    return [
        f"results/{wildcards.model}/onnx/{file}"
        for variant in released_variants(wildcards)
        for file in (variant, f"{variant}.json")
    ]


def browser_pages() -> list[str]:
    """Return what Node and a browser run."""
    return [resource_path(path) for path in sorted((RESOURCES / "transformers_js").iterdir())]


def browser_record(wildcards) -> list[str]:
    """Return what a model's variants answer in Node and in a browser, where its configuration asks for that."""
    asked = MODELS[wildcards.model]["parity"]["browser"]
    return [f"results/{wildcards.model}/parity/browser.json"] if asked else []


def copies_argument(wildcards) -> list[str]:
    """Return the option that puts a variant into a release under both names that transformers.js has for it."""
    return ["--copies"] if MODELS[wildcards.model]["release"]["copies"] else []


def targets_argument(wildcards) -> list[str]:
    """Return the option that has the files of a release checked for the providers that its configuration names."""
    targets = MODELS[wildcards.model]["release"]["targets"]
    return ["--targets", *targets] if targets else []


def fixed_shapes(model: str) -> list[tuple[str, str]]:
    """Return the variants that a release has with fixed shapes too, each with a shape, such as 1x128."""
    settings = MODELS[model]
    return [
        (variant, "x".join(map(str, shape)))
        for variant in settings["variants"]
        for shape in settings["release"]["fixed_shapes"].get(variant, [])
    ]


def fixed_files(wildcards) -> list[str]:
    """Return the graphs of a model with fixed shapes, and what was measured on each."""
    return [
        f"results/{wildcards.model}/fixed/{variant}/{shape}{ending}"
        for variant, shape in fixed_shapes(wildcards.model)
        for ending in ("", ".json")
    ]


def fixed_argument(wildcards) -> list[str]:
    """Return the option that names the graphs with fixed shapes of a release."""
    named = [f"{variant}/{shape}" for variant, shape in fixed_shapes(wildcards.model)]
    return ["--fixed", *named] if named else []


def lengths(wildcards) -> list[str]:
    """Return the lengths of a shape."""
    return wildcards.shape.split("x")


def target_tables(wildcards) -> list[str]:
    """Return the tables of the providers that a model's configuration names."""
    return [
        resource_path(RESOURCES / "targets" / f"{name}.yaml") for name in MODELS[wildcards.model]["release"]["targets"]
    ]


def browser_argument(wildcards) -> list[str]:
    """Return the option that has a release announce what answered in a browser, where that was measured."""
    return ["--browser"] if MODELS[wildcards.model]["parity"]["browser"] else []


def targets(wildcards) -> str:
    """Return what a recipe of a quantized variant is to reach, as JSON."""
    return json.dumps(MODELS[wildcards.model]["quantization"]["targets"][wildcards.quantized])


def thresholds(wildcards) -> str:
    """Return the allowed differences of a variant as JSON."""
    return json.dumps(MODELS[wildcards.model]["parity"]["thresholds"][wildcards.variant])


def benchmark_arguments(wildcards) -> list[str]:
    """Return the options for the configured cases and repetitions, and for the kind of machine where one is named."""
    settings = MODELS[wildcards.model]["benchmark"]
    options = (
        "batch_sizes",
        "sequence_lengths",
        "threads",
        "warmup",
        "rounds",
        "iterations",
        "seconds_per_case",
        "load_repeats",
        "providers",
    )
    writing = settings["generation"]
    asked = {option: settings[option] for option in options} | {
        "prompt_lengths": writing["prompt_lengths"],
        "context_lengths": writing["context_lengths"],
        "generation_batch_sizes": writing["batch_sizes"],
        "new_tokens": writing["new_tokens"],
    }
    arguments = []
    for option, asked_for in asked.items():
        values = asked_for if isinstance(asked_for, list) else [asked_for]
        arguments += [f"--{option.replace('_', '-')}", *map(str, values)]
    machine = node_kind(wildcards)
    return [*arguments, "--machine", machine] if machine else arguments


def benchmark_threads(wildcards) -> int:
    """Return all cores; where jobs go to other machines and no number was given, what the benchmark itself uses."""
    return cores_or(max(MODELS[wildcards.model]["benchmark"]["threads"]))


def released_variants(wildcards) -> list[str]:
    """Return the variants a model was configured to have."""
    return MODELS[wildcards.model]["variants"]


def released_thresholds(wildcards) -> str:
    """Return the allowed differences of all variants of a model as JSON."""
    settings = MODELS[wildcards.model]
    return json.dumps({variant: settings["parity"]["thresholds"][variant] for variant in settings["variants"]})


def released_machines(wildcards) -> list[str]:
    """Return the option that names the further kinds of machines a model was measured on."""
    machines = further_machines(wildcards.model)
    return ["--machines", *machines] if machines else []


#: What a release is made with beside scripts: the card, the examples on it, and the page for browsers.
RELEASE_RESOURCES = ("model_card.md.j2", "usage", "verify_page")


def release_resources() -> list[str]:
    """Return these files and folders. How old they are does not matter, because their digest tells of an edit.

    To name the five dozen files in the folders would be most of what a model's jobs have as inputs.
    """
    return [ancient(resource_path(path)) for path in RELEASE_RESOURCES]


def release_resources_digest() -> str:
    """Return the sha256 of these files and of those in the folders."""
    return digest_of_files(RESOURCES, *RELEASE_RESOURCES)


def proof_of_variants(wildcards) -> list[str]:
    """Return the files, manifests, parity and benchmarks of a model's variants."""
    files = [
        "onnx/{variant}",
        "onnx/{variant}.json",
        "parity/{variant}.json",
        "benchmark/{variant}.json",
        *(f"benchmark/{machine}/{{variant}}.json" for machine in further_machines(wildcards.model)),
        *(f"parity/{provider}/{{variant}}.json" for provider in other_providers(wildcards.model)),
    ]
    return [
        f"results/{wildcards.model}/{file.format(variant=variant)}"
        for variant in released_variants(wildcards)
        for file in files
    ]


def passed_gates(wildcards) -> list[str]:
    """Return the files that exist only where the gates of a model's variants passed."""
    return [f"results/{wildcards.model}/parity/{variant}.ok" for variant in released_variants(wildcards)]


def publish_arguments(wildcards) -> list[str]:
    """Return the options that say where a model is published, and whether for real."""
    settings = MODELS[wildcards.model]["publish"]
    branch = ["--branch", settings["branch"]] if settings["branch"] else []
    return ["--repo", settings["repo"], *branch, *([] if settings["dry_run"] else ["--for-real"])]


def summary_settings(wildcards=None) -> str:
    """Return, as JSON, the variants, machines and thresholds of every model."""
    return json.dumps(
        {
            model: {
                "variants": settings["variants"],
                "pytorch": settings["benchmark"]["pytorch"],
                "machines": settings["benchmark"]["machines"],
                "thresholds": settings["parity"]["thresholds"],
                "evaluated": bool(evaluation_of(model)),
                "not_worse_by": evaluation_of(model).get("not_worse_by"),
            }
            for model, settings in MODELS.items()
        }
    )


def check_settings(wildcards) -> str:
    """Return, as JSON, what `check` needs to know of every model."""
    keys = ("source", "task", "exporter", "variants", "benchmark", "release")
    keys += ("allow_pickle", "allow_remote_code", "allow_floating_revision")
    return json.dumps({model: {key: MODELS[model].get(key) for key in keys} for model in MODELS})


def results_place(wildcards=None) -> str:
    """Return where the results are for a reader: a folder, or below the prefix of a storage provider."""
    return f"{storage_prefix()}{results_folder()}"
