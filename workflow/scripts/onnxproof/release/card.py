"""The model card of a release, in the Hub's format: YAML metadata, then Markdown."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import yaml

from onnxproof.evaluation.quoted import QUOTED
from onnxproof.formatting import format_figure
from onnxproof.inputs.final_answers import PAIRS, SPEECH_HEADING, TEXTS, USES
from onnxproof.places import RESOURCES
from onnxproof.records.evaluation import EvaluationData
from onnxproof.records.reference import Usage
from onnxproof.records.release import (
    PreparedRelease,
    ReleaseDescription,
    ReleasedReference,
    ReleasedVariant,
    TargetVerdict,
)
from onnxproof.records.variant import Settings
from onnxproof.release.node_models import is_loaded_in_node
from onnxproof.tasks.heads import NONE, SOFTMAX
from onnxproof.vocabulary import METRICS, QUANTIZED_VARIANTS

TEMPLATE = "model_card.md.j2"
USAGE = RESOURCES / "usage"

#: What is taken over from the metadata of the source's own card: its license above all.
CARRIED = ("license", "license_name", "license_link", "language", "datasets")

#: The library that the Hub's page of a model is to open with.
LIBRARIES = {"sentence-similarity": "sentence-transformers"}

#: What the Hub calls a task, where that is not its name here.
PIPELINE_TAGS = {"speech-to-text": "automatic-speech-recognition", "semantic-segmentation": "image-segmentation"}

#: Tags by which the Hub finds a model for a client, beside those of the source.
TAGS = ("onnx", "onnxruntime", "optimum", "transformers.js")
#: Of these clients, those that do not load the models of a task.
NOT_LOADED_BY = {"image-text-to-text": frozenset({"optimum"})}
#: A server that pools the vectors of tokens by itself.
SERVER_TAG = "text-embeddings-inference"
TASK_TAGS = {
    "sentence-similarity": ("sentence-transformers", SERVER_TAG),
    "feature-extraction": (SERVER_TAG,),
}


class Client(NamedTuple):
    """A library that loads a release: its name, its language, how it is installed, and what its program was run with.

    ``run_with`` are versions by the name of the package.
    """

    name: str
    language: str
    install: str
    run_with: dict[str, str]


_OPTIMUM = {"optimum-onnx": "0.1.0", "transformers": "4.57.6", "onnxruntime": "1.32.0"}
_TRANSFORMERS = {"transformers": "5.24.0", "onnxruntime": "1.32.0"}

#: A model has an example of a client where ``resources/usage/{kind of use}/{file of the client}.j2`` is, see
#: ``kind_of_use``. A test compares the versions with the locks.
CLIENTS = {
    "optimum.py": Client(
        "Optimum", "python", 'pip install "optimum-onnx[onnxruntime]==0.1.0" "transformers<4.58"', _OPTIMUM
    ),
    "sentence_transformers.py": Client(
        "sentence-transformers",
        "python",
        'pip install "sentence-transformers[onnx]==5.7.0" "transformers<4.58"',
        {"sentence-transformers": "5.7.0"} | _OPTIMUM,
    ),
    "exported_model.py": Client(
        "transformers 5", "python", "pip install transformers torch onnxruntime onnxscript", _TRANSFORMERS
    ),
    "onnxruntime.py": Client(
        "onnxruntime and tokenizers alone",
        "python",
        "pip install onnxruntime numpy tokenizers",
        {"onnxruntime": "1.32.0", "tokenizers": "0.23.3"},
    ),
    "onnxruntime_images.py": Client(
        "onnxruntime, with transformers' image processor",
        "python",
        "pip install onnxruntime numpy pillow transformers",
        _TRANSFORMERS,
    ),
    "onnxruntime_vision.py": Client(
        "onnxruntime, with transformers' image processor and PyTorch",
        "python",
        "pip install onnxruntime numpy pillow transformers torch",
        _TRANSFORMERS,
    ),
    "onnxruntime_processor.py": Client(
        "onnxruntime, with transformers' processor",
        "python",
        "pip install onnxruntime numpy pillow transformers torch jinja2",
        _TRANSFORMERS,
    ),
    "onnxruntime_open.py": Client(
        "onnxruntime, with transformers' image processor, PyTorch and SciPy",
        "python",
        "pip install onnxruntime numpy pillow transformers torch scipy",
        _TRANSFORMERS,
    ),
    "onnxruntime_sounds.py": Client(
        "onnxruntime, with transformers' feature extractor",
        "python",
        "pip install onnxruntime numpy transformers",
        _TRANSFORMERS,
    ),
    "onnxruntime_speech.py": Client(
        "onnxruntime, with transformers' feature extractor and tokenizer",
        "python",
        "pip install onnxruntime numpy transformers",
        _TRANSFORMERS,
    ),
    "onnxruntime_alone.py": Client(
        "onnxruntime alone", "python", "pip install onnxruntime numpy", {"onnxruntime": "1.32.0"}
    ),
    "transformers.mjs": Client(
        "transformers.js in Node",
        "js",
        "npm install @huggingface/transformers",
        {"@huggingface/transformers": "4.3.1"},
    ),
}
#: The client that needs ``export.json``, which only graphs of transformers' exporter have.
READS_EXPORT_FILE = "exported_model.py"
#: Clients whose examples pad texts, for which a tokenizer needs a padding token.
PADDING_CLIENTS = {"exported_model.py"}
#: The client whose pipeline takes no pairs of texts, makes probabilities of a regression's values, and does not know
#: one of the rules of which token may follow.
IN_NODE, UNKNOWN_IN_NODE = "transformers.mjs", "encoder_no_repeat_ngram_size"

#: Tasks whose graphs, several of them, are shown where there is no program for raw inputs.
SEVERAL_GRAPHS = frozenset({"speech-to-text", "image-to-text", "image-text-to-text"})

#: What examples are told of an original that nothing special is known of.
DEFAULT_USAGE: Usage = {
    "takes": TEXTS,
    "activation": SOFTMAX,
    "pads": True,
    "prompts": {},
    "default_prompt": "",
    "mask_token": "[MASK]",
    "chat": None,
    "ends": [],
    "first": [0],
    "rules": {},
    "not_applied": {},
    "max_tokens": 512,
    "candidates": ["a cat", "a dog"],
    "threshold": 0.5,
    "unwritten": 1,
    "languages": [],
    "suppressed": [],
    "suppressed_first": [],
    "longest": None,
    "most_written": 256,
    "neutrals": {},
    "cleans": False,
    "method": "post_process_instance_segmentation",
    "patches": False,
    "mark": None,
}

#: What a reader chooses a variant for.
VARIANTS = {
    "fp32": "loads in every ONNX runtime",
    "optimized": "fused for onnxruntime",
    "fp16": "half the size; for GPUs and WebGPU",
    "int8": "the smallest and fastest; an answer shifts a little with its batch",
    "uint8": "as int8 with unsigned weights, which no CPU needs narrower scales for; slower on most",
    "int8-invariant": "small; an answer does not depend on its batch",
    "int8-static": "int8 with fixed scales, for OpenVINO and other providers; an answer does not depend on its batch",
    "int8-symmetric": "int8 with fixed scales and no zero points, for TensorRT",
    "w8a16": "8-bit weights and 16-bit activations with fixed scales, for NPUs of Qualcomm (QNN)",
    "w8": "8-bit weights; for language models on a CPU",
    "q4": "4-bit weights; the smallest file, for every runtime",
    "q4-cpu": "4-bit weights; for language models on a CPU",
    "q4f16": "4-bit weights, computed in float16; for GPUs and WebGPU",
}

#: The most nodes that a card names of a recipe.
MOST_NAMED = 4
#: What each pass of a quantization recipe does, for a reader.
PASSES = {
    "block_weights": "Constant weights become 4-bit or 8-bit integers with one scale per block of inputs; activations "
    "stay in float.",
    "cache_in_place": "Attention is one operator. Where a program gives one buffer as the old and the new cache, as "
    "onnxruntime-genai does, it adds new keys and values and copies nothing. Of several texts, it takes one new token "
    "behind a cache, not more.",
    "embedding_blocks": "Embedding tables become 4-bit or 8-bit integers with one scale per block; a head with the "
    "same weights shares the table.",
    "halve": "Weights and values become float16, but for the nodes that its range does not hold.",
    "center_channels": "Activation channels are shifted to lie around zero, and queries and keys get like ranges.",
    "outlier_channels": "The few activation channels with the largest outliers are multiplied in float.",
    "share_tied_tables": "A head with the weights of the embedding table reads that table.",
    "smooth": "What is large in the other activations is moved into the weights (SmoothQuant).",
    "soften_masks": "What hides keys from attention becomes a number that float16 holds.",
    "static_matmul": "Constant weights become 8-bit integers, activations integers with one scale per tensor, fixed "
    "by calibration: an answer does not depend on its neighbours in a batch.",
    "split_bias_gelu": "Fused bias and GELU are taken apart again, which is faster here.",
    "embedding_rows": "Embedding tables become int8 with one scale per row.",
    "dynamic_matmul": "Constant weights become int8 with one scale per output channel, activations uint8 with one "
    "scale per tensor, found when the model runs.",
    "per_token": "Constant weights become int8 with one scale per output channel, activations int8 with one scale "
    "per token: an answer does not depend on its neighbours in a batch.",
}


#: What inputs a recipe is judged on, and where they come from unless the user gave others.
CALIBRATION = {"texts": "that come with onnxproof", "images": "that were drawn", "sounds": "that were synthesized"}


def read_metadata(card: Path) -> dict[str, Any]:
    """Return the YAML metadata at the top of a model card; empty where there is none that can be read."""
    text = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else ""
    if not text.startswith("---\n"):
        return {}
    try:
        metadata = yaml.safe_load(text[4:].split("\n---", 1)[0])
    except yaml.YAMLError as error:
        print(f"note: the metadata of {card} is no YAML and is not carried over: {error}", flush=True)
        return {}
    return metadata if isinstance(metadata, dict) else {}


def card_metadata(
    manifest: ReleaseDescription, source_metadata: dict[str, Any], model_type: str | None = None
) -> dict[str, Any]:
    """Return a release's metadata: what the Hub needs, and what the source's card said about license and language."""
    task, source = manifest["task"], manifest["source"]
    not_loaded_by = set(NOT_LOADED_BY.get(task, ()))
    if not is_loaded_in_node(task, model_type):
        not_loaded_by.add("transformers.js")
    clients = [tag for tag in TAGS if tag not in not_loaded_by]
    own = TASK_TAGS.get(task, ())
    if not manifest["reference"]["usage"].get("pooled_by_servers", True):
        own = tuple(tag for tag in own if tag != SERVER_TAG)
    tags = dict.fromkeys((*clients, *own, *(source_metadata.get("tags") or ())))
    metadata = {key: source_metadata[key] for key in CARRIED if source_metadata.get(key)}
    if source["kind"] == "hub":
        metadata["base_model"] = source["repo"]
        if set(QUANTIZED_VARIANTS) & manifest["variants"].keys():  # the Hub has no word for a model in another format
            metadata["base_model_relation"] = "quantized"
    metadata["library_name"] = LIBRARIES.get(task, "onnx")
    pipeline_tag = PIPELINE_TAGS.get(task, task)
    return metadata | {"pipeline_tag": pipeline_tag, "tags": list(tags)} | model_index(manifest, pipeline_tag)


def model_index(manifest: ReleaseDescription, pipeline_tag: str) -> dict[str, Any]:
    """Return what the Hub shows as results: how good each file is on labelled data; empty where nothing is known."""
    qualities = [
        (facts["file"], facts["evaluation"]) for facts in manifest["variants"].values() if "evaluation" in facts
    ]
    if not qualities:
        return {}
    first = qualities[0][1]
    results = {
        "task": {"type": pipeline_tag},
        "dataset": dataset_of(first["data"]),
        "metrics": [
            {"type": first["metric"], "name": f"{first['metric']} of {file}", "value": quality["value"]}
            for file, quality in qualities
        ],
    }
    return {"model-index": [{"name": manifest["model"], "results": [results]}]}


def dataset_of(data: EvaluationData) -> dict[str, str]:
    """Return what the Hub calls labelled data: the task that they are quoted as and its dataset, or the file."""
    if "task" in data:
        return {"name": data["task"], "type": QUOTED[data["task"]].dataset}
    return {"name": data["file"], "type": Path(data["file"]).stem}


def kind_of_use(task: str, reference: ReleasedReference) -> str:
    """Return whose examples fit a model: those of its use, of its task, or, where nobody wrote any, of any graph."""
    if use := reference["usage"].get("use"):
        return use
    takes_texts = "max_tokens_of_model" in reference["inputs"]
    if task in SEVERAL_GRAPHS:
        return "writing"
    # Whose programs need a function of the processor, or a tokenizer beside it.
    lacks_part = task in USES and ("torch" in USES[task].needs or USES[task].heading == SPEECH_HEADING)
    if lacks_part or (task == "feature-extraction" and not takes_texts) or not (USAGE / task).is_dir():
        return "other"
    return task


def usage_examples(
    kind: str,
    file: str,
    usage: Usage | None = None,
    with_export_file: bool = True,
    model_type: str | None = None,
) -> list[dict[str, Any]]:
    """Return the clients' examples of a kind of use, as ``{name, language, install, run_with, file, code}``.

    Args:
        kind: see ``kind_of_use``.
        file: the ONNX file that they load. Transformers 5 loads the one that ``export.json`` names.
        usage: what the examples must know of the original, and whether the tokenizer ``pads``.
        with_export_file: whether the release has ``export.json``.
        model_type: what config.json says that the model is. transformers.js loads those that it knows.
    """
    facts = DEFAULT_USAGE | (usage or {})
    pairs = facts["takes"] == PAIRS
    left_out = set() if with_export_file else {READS_EXPORT_FILE}
    if not facts["pads"]:
        left_out |= PADDING_CLIENTS
    if kind == "text-classification" and (pairs or facts["activation"] == NONE):
        left_out.add(IN_NODE)
    if UNKNOWN_IN_NODE in facts["rules"] or not is_loaded_in_node(kind, model_type):
        left_out.add(IN_NODE)
    examples = []
    for client, told in CLIENTS.items():
        path = USAGE / kind / f"{client}.j2"
        if path.is_file() and client not in left_out:
            code: str = (
                _environment().from_string(path.read_text(encoding="utf-8")).render(facts, pairs=pairs, file=file)
            )
            examples.append(told._asdict() | {"file": client, "code": code.strip()})
    return examples


def recipe_in_words(settings: Settings) -> list[str]:
    """Return a variant's settings as sentences; an unknown pass is given by its name and parameters."""
    if "graphs" in settings:
        parts = settings["graphs"].items()
        return [f"`{file}`: {sentence}" for file, own in parts for sentence in recipe_in_words(own)]
    sentences = []
    if "exporter" in settings:
        by = "Optimum" if settings["exporter"].startswith("optimum") else "transformers' own exporter"
        sentences.append(f"Exported from PyTorch by {by}, in float32.")
    if "method" in settings:
        fused = ", ".join(f"{count} {name}" for name, count in settings["fused"].items())
        sentences.append(f"Optimized by {settings['method']}: {fused or settings.get('reason', 'nothing to fuse')}.")
    if "recipe" not in settings:
        return sentences
    for step in settings["recipe"]:
        parameters = ", ".join(
            f"{key} {_short(value)}" for key, value in step.items() if key != "pass" and value not in (None, [])
        )
        sentence = PASSES.get(step["pass"], f"{step['pass']}.")
        sentences.append(f"{sentence} `{step['pass']}`{': ' if parameters else ''}{parameters}")
    calibration = settings["calibration"]
    kind, count = next((key, value) for key, value in calibration.items() if key in CALIBRATION)
    whose = "of its user's own" if calibration.get("bundled") is False else CALIBRATION[kind]
    calibrated = f"Calibrated on {count} {kind} {whose}, without labels."
    if "labelled" not in calibration:
        return [*sentences, calibrated]
    aside, kept = calibration["labelled"], settings["search"]["labelled"]
    return [
        *sentences,
        calibrated,
        f"{len(aside['rows'])} rows of `{aside['file']}` were kept aside for the choice of the recipe: "
        f"{kept['metric']} on them is {format_figure(kept['of_recipe'])}, "
        f"and {format_figure(kept['of_float'])} in float32.",
    ]


def _short(value: Any) -> Any:
    """Return a parameter as a card shows it: of a long list, its length."""
    return f"{len(value)} nodes" if isinstance(value, list) and len(value) > MOST_NAMED else value


def render_model_card(
    manifest: PreparedRelease,
    source_metadata: dict[str, Any],
    with_export_file: bool = False,
    model_type: str | None = None,
) -> str:
    """Return the release's README.md.

    Args:
        manifest: as in ``manifest.json``, without its list of files.
        source_metadata: the metadata of the source's card.
        with_export_file: whether the release has ``export.json``.
        model_type: what config.json says that the model is.
    """
    metadata = card_metadata(manifest, source_metadata, model_type)
    kind = kind_of_use(manifest["task"], manifest["reference"])
    files = [facts["file"] for facts in manifest["variants"].values()]
    template = _environment().from_string((RESOURCES / TEMPLATE).read_text(encoding="utf-8"))
    body: str = template.render(
        manifest,
        license=metadata.get("license"),
        origin=next(manifest["source"][key] for key in ("repo", "package", "path") if manifest["source"].get(key)),
        kind_of_use=kind,
        heading=USES[kind].heading if kind in USES else None,
        examples=usage_examples(
            kind, best_file(manifest), manifest["reference"]["usage"], with_export_file, model_type
        ),
        files=files,
        places=places_of(manifest["variants"]),
        words={variant: recipe_in_words(facts["settings"]) for variant, facts in manifest["variants"].items()},
        metrics=METRICS,
        choice=VARIANTS,
        other_providers=manifest.get("other_providers", []),
        target_lines=target_lines(manifest.get("targets", {})),
    )
    return f"---\n{yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True)}---\n\n{body}"


def target_lines(verdicts: Mapping[str, Mapping[str, TargetVerdict]]) -> list[str]:
    """Return a line for each ONNX file and execution provider: what the provider's documentation says of the file."""
    from onnxproof.graph.providers import read_provider  # imports onnx, and programs of cards are read without it

    return [
        f"`{file}` on {read_provider(name).title}: {_verdict_in_words(verdict)}."
        for file, by_provider in verdicts.items()
        for name, verdict in by_provider.items()
    ]


def _verdict_in_words(verdict: TargetVerdict) -> str:
    inputs = ", ".join(f"`{name}`" for name in verdict["not_fixed"])
    fixed = f" once the shapes of {inputs} are fixed" if inputs else ""
    if not verdict["refused"]:
        return f"it takes all {verdict['nodes']} nodes{fixed}"
    count = sum(len(group["nodes"]) for group in verdict["refused"])
    by_reason: dict[str, list[str]] = {}
    for group in verdict["refused"]:
        by_reason.setdefault(group["reason"], []).append(f"{len(group['nodes'])} {group['operator']}")
    reasons = [f"{', '.join(operators)} ({reason})" for reason, operators in by_reason.items()]
    return f"it refuses {count} of {verdict['nodes']} nodes{fixed}: {'; '.join(reasons)}"


def places_of(variants: dict[str, ReleasedVariant]) -> list[dict[str, Any]]:
    """Return, for each kind of machine the files were timed on, its ``name``, and ``cases`` and ``steps`` by file."""
    runs = [[facts["benchmark"], *facts["benchmark"].get("elsewhere", [])] for facts in variants.values()]
    files = [facts["file"] for facts in variants.values()]
    return [
        {
            "name": benchmarks[0]["cpu"]["model"]
            + (f" (`{benchmarks[0]['machine']}`)" if "machine" in benchmarks[0] else ""),
            "cases": [(file, case) for file, each in zip(files, benchmarks, strict=True) for case in each["cases"]],
            "steps": [
                (file, step)
                for file, each in zip(files, benchmarks, strict=True)
                for step in each.get("generation", [])
            ],
        }
        for benchmarks in zip(*runs, strict=True)
    ]


def best_file(manifest: ReleaseDescription) -> str:
    """Return the ONNX file to show in examples: the quantized one where the release has one."""
    files = [facts["file"] for facts in manifest["variants"].values()]
    return next((file for file in files if file.endswith(("model_quantized.onnx", "merged_quantized.onnx"))), files[-1])


def _environment() -> Any:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(USAGE), undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["figure"] = format_figure
    environment.filters["python"] = repr
    return environment
