"""Make a variant with fewer bits than float32 of a float graph: int8, weights by blocks, or float16.

The recipe is searched for: see ``onnxproof/quantization/search/ladder.py``. Where none reaches the targets, the
nearest is written and the parity gate decides; what was tried is in the manifest and in the log.
"""

import argparse
import hashlib
import json
import math
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, cast

from onnxproof.checkpoint.inference import judged_as_in, read_transformer_config
from onnxproof.cli import run_script
from onnxproof.files import sha256_of, staged_folder, versions_of, write_json
from onnxproof.graph.external_data import WHOLE_BELOW, load_model, save_model
from onnxproof.graph.files import separate_graphs
from onnxproof.graph.folder import describe_variant, model_bytes, settings_of_graphs
from onnxproof.graph.inputs import inputs_of_graph
from onnxproof.graph.merged_decoder import merge_decoders
from onnxproof.graph.support_files import copy_support_files
from onnxproof.inputs.calibration import MAX_TOKENS, MAX_TOKENS_OF_FIXED
from onnxproof.inputs.material import CALIBRATION_SEED
from onnxproof.inputs.texts import CALIBRATION_TEXTS
from onnxproof.memory import keep_freed_blocks
from onnxproof.quantization.findings import Findings, read_findings, write_findings
from onnxproof.quantization.half_bounds import MARGIN, Bound
from onnxproof.quantization.passes.dynamic_matmul import read_rounded_weights
from onnxproof.quantization.portability import check_portability, try_on_this_cpu
from onnxproof.quantization.search.candidates import FIXED, single_file_bytes
from onnxproof.quantization.search.labelled import Examples, read_examples
from onnxproof.quantization.search.ladder import find_recipe
from onnxproof.records.variant import (
    Calibration,
    Certificate,
    LabelledCalibration,
    NodeBound,
    QuantizationSettings,
    Search,
    read_variant,
)
from onnxproof.tasks.heads import count_labels
from onnxproof.tasks.model_types import model_takes
from onnxproof.vocabulary import QUANTIZED_VARIANTS

if TYPE_CHECKING:
    import onnx


def quantize(
    model: str,
    variant: str,
    source: Path,
    source_manifest: Path,
    targets: dict[str, float | None],
    texts: Path,
    folder: Path,
    manifest: Path,
    labelled: Path | None = None,
    found: Path | None = None,
    known: tuple[Path, Path] | None = None,
) -> None:
    """Find the recipe of one float model, quantize it and describe the result and the search.

    Args:
        model: its name.
        variant: the variant to make.
        source: the folder of the float model.
        source_manifest: its manifest.
        targets: what a recipe must reach, by metric.
        texts: calibration texts.
        folder: the folder to write.
        manifest: its manifest, to be written.
        labelled: a file of labelled inputs that were kept aside for the search.
        found: a file for what the search finds out and another variant's can use, if that is to be written.
        known: such a file of another variant of the same float model, and that variant's folder.
    """
    task = read_variant(source_manifest)["task"]
    origin = origin_of_search(source_manifest, texts, labelled)
    findings = read_findings(*known, origin, read_rounded_weights) if known else Findings()
    rounded = {}
    settings: dict[str, QuantizationSettings] = {}
    examples = read_examples(labelled) if labelled else None
    with staged_folder(folder) as stage:
        for file in separate_graphs(source):
            with tempfile.TemporaryDirectory(dir=stage, prefix=".quantize.") as scratch:
                graph, settings[file] = quantize_graph(
                    model, variant, source, file, task, targets, texts, Path(scratch), examples, findings
                )
                rounded[folder / file] = findings.found_in(read_rounded_weights(graph)) if found else {}
                save_model(graph, stage / file, single_file_bytes(variant))
        merge_decoders(stage)
        copy_support_files(source, stage)
        description = describe_variant(
            model,
            variant,
            task,
            stage,
            settings_of_graphs(settings),
            versions_of("onnx", "onnxruntime", "numpy", "tokenizers"),
        )
    write_json(manifest, description)
    if found:
        write_findings(found, origin, findings.choices, rounded)
    before, after = (model_bytes(path) / 1e6 for path in (source, folder))
    print(f"{model} {variant}: {before:.1f} MB to {after:.1f} MB", flush=True)


def quantize_graph(
    model: str,
    variant: str,
    source: Path,
    file: str,
    task: str,
    targets: dict[str, float | None],
    texts: Path,
    scratch: Path,
    examples: Examples | None = None,
    findings: Findings | None = None,
) -> tuple["onnx.ModelProto", QuantizationSettings]:
    """Return one graph of a model, quantized by the recipe found for it, and how that went."""
    model_in_float = load_model(source / file, scratch, WHOLE_BELOW)
    config = read_transformer_config(source)
    entries = examples.entries if examples else []
    longest = MAX_TOKENS_OF_FIXED if variant in FIXED else MAX_TOKENS
    task_of_graph, inputs = inputs_of_graph(source, file, task, model_in_float.graph.input, texts, entries, longest)
    found = find_recipe(
        model_in_float,
        inputs,
        targets,
        task=judged_as_in(source, task_of_graph),
        variant=variant,
        labels=count_labels(config),
        examples=examples,
        findings=findings,
        progress=progress_printer(model, variant),
    )
    settings: QuantizationSettings = {
        "recipe": found.recipe,
        "search": cast(Search, {"targets": targets} | found.record()),
        "portability": {**check_portability(found.model), "tried_here": try_on_this_cpu(found.model)},
        "calibration": describe_calibration(
            len(inputs.items) - len(entries), model_takes(config.get("model_type")), texts
        ),
    }
    if examples:
        settings["calibration"]["labelled"] = describe_labelled(examples)
    if found.bounds:
        settings["float16"] = certify(found.bounds, set(found.recipe[-1]["keep"]))
    return found.model, settings


def origin_of_search(source_manifest: Path, texts: Path, labelled: Path | None) -> str:
    """Return a digest of all that findings about a float model depend on, but for the choices themselves."""
    facts = {
        "files": read_variant(source_manifest)["files"],
        "inputs": [sha256_of(path) for path in (texts, labelled) if path],
        "versions": versions_of("onnx", "onnxruntime", "numpy", "tokenizers"),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def certify(bounds: Mapping[str, Bound], kept: set[str]) -> Certificate:
    """Return the bounds of all nodes of a graph in float16, and which of them are ``kept`` in float32."""
    nodes: dict[str, NodeBound] = {
        name: {
            "largest": bound.largest if math.isfinite(bound.largest) else None,
            "of": bound.of,
            "lost": bound.lost,
            "float32": name in kept,
        }
        for name, bound in bounds.items()
    }
    return {"margin": MARGIN, "nodes": nodes}


def describe_calibration(count: int, takes: str, texts: Path) -> Calibration:
    """Return what the recipe of a model, or of one of its graphs, was judged on.

    Args:
        count: how many inputs.
        takes: what models of its type take, see ``model_takes``. Only one of texts is shown a file.
        texts: that file.
    """
    if takes == "text":
        sha256 = sha256_of(texts)
        return {"texts": count, "sha256": sha256, "bundled": sha256 == sha256_of(CALIBRATION_TEXTS)}
    if takes == "sound":
        return {"sounds": count, "seed": CALIBRATION_SEED}
    return {"images": count, "seed": CALIBRATION_SEED}


def describe_labelled(examples: Examples) -> LabelledCalibration:
    """Return which share of the labelled data a recipe was judged on."""
    given = examples.given
    return {
        "file": given["file"],
        "sha256": given["sha256"],
        "share": given["share"],
        "rows": given["rows"],
        "inputs": len(examples.entries),
    }


def progress_printer(model: str, variant: str) -> Callable[[str], None]:
    """Return a function that prints a line of the search at once, with the model and variant it is about."""

    def print_progress(line: str) -> None:
        print(f"{model} {variant}: {line}", flush=True)

    return print_progress


def main(argv: list[str] | None = None) -> None:
    """Parse the command line and quantize."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="the model's name in config.yaml")
    parser.add_argument("--variant", choices=QUANTIZED_VARIANTS, default="int8", help="which ladder to climb")
    parser.add_argument(
        "--source",
        type=Path,
        required=True,
        help="folder with the float ONNX model: the optimized one, or the plain export for variants with fixed scales",
    )
    parser.add_argument("--source-manifest", type=Path, required=True, help="its manifest")
    parser.add_argument(
        "--targets",
        type=json.loads,
        required=True,
        help='what a recipe must reach on the calibration texts, as JSON: {"cosine_min": 0.99}',
    )
    parser.add_argument(
        "--texts", type=Path, default=CALIBRATION_TEXTS, help="calibration texts, .jsonl or .txt (default: bundled)"
    )
    parser.add_argument("--labelled", type=Path, help="labelled inputs on which a recipe must keep the task's metric")
    parser.add_argument("--found", type=Path, help="file for what other variants' searches can use")
    parser.add_argument(
        "--known",
        type=Path,
        nargs=2,
        metavar=("FOUND", "FOLDER"),
        help="such a file of another variant of the same model, and the folder of that variant",
    )
    parser.add_argument("--output-dir", type=Path, required=True, help="folder to write the quantized model to")
    parser.add_argument("--manifest", type=Path, required=True, help="JSON file to describe it in")
    args = parser.parse_args(argv)
    keep_freed_blocks()
    quantize(
        args.model,
        args.variant,
        args.source,
        args.source_manifest,
        args.targets,
        args.texts,
        args.output_dir,
        args.manifest,
        args.labelled,
        args.found,
        args.known,
    )


if __name__ == "__main__":
    run_script(main)
