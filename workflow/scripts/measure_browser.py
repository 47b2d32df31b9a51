"""Measure what a model's ONNX files answer in transformers.js: in Node, and in a browser on WebAssembly and on WebGPU.

The inputs are those that a release carries, the answers are compared as the gate compares them. This step only
measures: what is announced of it is decided where the release is made, see ``onnxproof/release/announcement.py``.
"""

import argparse
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from onnxproof.cli import UserError, first_line, run_script
from onnxproof.files import versions_of, write_json
from onnxproof.graph.encoder_decoder import generate_after
from onnxproof.graph.folder import proven_sha256
from onnxproof.graph.generation import matched_share, with_empty_cache
from onnxproof.graph.sessions import Session
from onnxproof.inputs.model_inputs import TOKENS, Reference
from onnxproof.inputs.reference import read_reference
from onnxproof.parity.browser import (
    DEVICES,
    Browser,
    BrowserError,
    Device,
    Node,
    Place,
    find_chromium,
    find_packages,
    version_of_program,
)
from onnxproof.parity.measure import Sessions, measure_sessions
from onnxproof.records.browser import BrowserAnswers, BrowserRecord, BrowserRun
from onnxproof.records.release import GoldenReference
from onnxproof.records.variant import read_variant
from onnxproof.release.golden import read_golden, write_golden

#: Where transformers.js runs on each device.
PLACES: dict[Device, type[Place]] = {"cpu": Node, "wasm": Browser, "webgpu": Browser}
#: How each is installed.
INSTALLED: dict[type[Place], str] = {
    Browser: "Chromium is not installed; install it (Debian: chromium)",
    Node: "Node is not installed; install it (Debian: nodejs)",
}
#: Where `make setup-browser` installs transformers.js, beside this Python's packages.
NODE_MODULES = Path(sys.prefix) / "clients" / "node_modules"


def measure(
    model: str,
    results: Path,
    variants: Sequence[str],
    batch_size: int,
    programs: Mapping[type[Place], str],
    node_modules: Path,
) -> BrowserRecord:
    """Return what each variant answers on each device.

    Args:
        model: the model's name in config.yaml.
        results: its folder, with the variants below ``onnx/`` and what was recorded in ``reference/``.
        variants: the model's; those that a release does not ship are left out.
        batch_size: inputs in a padded batch.
        programs: Node and Chromium.
        node_modules: where transformers.js is installed.

    Raises:
        UserError: transformers.js is not installed, or Node or Chromium does not start.
    """
    find_packages(node_modules)
    reference = read_reference(results / "reference", results / "reference.json")
    with tempfile.TemporaryDirectory() as folder:
        write_golden(reference, Path(folder))
        golden = read_golden(Path(folder))
    runs: list[BrowserRun] = []
    told: dict[type[Place], dict[str, Any]] = {}
    for variant in released(variants):
        manifest = read_variant(results / "onnx" / f"{variant}.json")
        for device in DEVICES:
            kind = PLACES[device]
            with kind(programs[kind], node_modules, results / "onnx" / variant) as place:
                told[kind] = told.get(kind) or start(place)
                run = run_variant(place, variant, device, proven_sha256(manifest["files"]), golden, batch_size)
            runs.append(run)
            print(f"{model} {variant} on {device}: {run['error'] or run['answers']['task_metrics']}", flush=True)
    return {
        "model": model,
        "task": golden.manifest["task"],
        "inputs": {"count": golden.answered},
        "adapter": told[Browser]["adapter"],
        "runs": runs,
        "versions": {
            "chromium": version_of_program(programs[Browser]),
            "node": version_of_program(programs[Node]),
            "transformers.js": told[Browser]["library"],
            "onnxruntime-web": told[Browser]["runtime"],
            "onnxruntime-node": told[Node]["runtime"],
            **versions_of("numpy"),
        },
    }


def released(variants: Sequence[str]) -> list[str]:
    """Return the variants that a release ships: ``optimized`` only where there is no ``fp32``."""
    return [variant for variant in variants if variant != "optimized" or "fp32" not in variants]


def start(place: Place) -> dict[str, Any]:
    """Return what transformers.js says of the place that it runs in.

    Raises:
        UserError: the place does not start, or does not run transformers.js.
    """
    try:
        about: dict[str, Any] = place.ask("about")
    except BrowserError as error:
        raise UserError(f"parity.browser: transformers.js does not run in {place.NAME}: {first_line(error)}") from error
    return about


def run_variant(
    place: Place,
    variant: str,
    device: Device,
    sha256: str,
    golden: "Reference[GoldenReference]",
    batch_size: int,
) -> BrowserRun:
    """Return what one variant answers on one device, or what stops it there."""
    run: BrowserRun = {"variant": variant, "device": device, "sha256": sha256, "loads": False, "error": None}
    try:
        session = place.open_variant(device)
        run["loads"] = True
        measured = measure_sessions(variant, Sessions(session), replace(golden, generated={}), batch_size)
        written = measure_texts(place, session, golden, device)
    except (BrowserError, UserError) as error:
        return {**run, "error": first_line(error)}
    answers: BrowserAnswers = {
        "outputs": measured.outputs,
        "task_metrics": written | measured.task_metrics,
        "batch_invariance": measured.batch_invariance,
    }
    return {**run, "answers": answers}


def measure_texts(
    place: Place, session: Session, golden: "Reference[GoldenReference]", device: Device
) -> dict[str, float | None]:
    """Return how much of what PyTorch generates is generated in a place too; nothing where none was recorded.

    A decoder of texts writes with transformers.js's own ``generate``.
    """
    if not golden.generated:
        return {}
    expected = golden.generated
    if golden.manifest["task"] == "text-generation":
        prompts = [golden.inputs.items[index][TOKENS] for index in expected]
        made = place.generate(prompts, [len(tokens) for tokens in expected.values()], device)
    else:
        inputs = with_empty_cache(golden.inputs, session.get_inputs())
        made = [generate_after(session, inputs, index, len(tokens), True) for index, tokens in expected.items()]
    shares = [matched_share(tokens, own) for tokens, own in zip(expected.values(), made, strict=True)]
    return {"greedy_token_match": float(np.mean(shares))}


def main(argv: list[str] | None = None) -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="the model's name in config.yaml")
    parser.add_argument("--results", type=Path, required=True, help="the model's folder below results/")
    parser.add_argument("--variants", nargs="+", required=True, help="the variants to measure")
    parser.add_argument("--batch-size", type=int, default=8, help="inputs in a padded batch")
    parser.add_argument("--chromium", default=find_chromium(), help="the browser (default: the one that is installed)")
    parser.add_argument("--node", default=shutil.which("node"), help="Node (default: the one that is installed)")
    parser.add_argument("--node-modules", type=Path, default=NODE_MODULES, help="where transformers.js is installed")
    parser.add_argument("--output", type=Path, required=True, help="JSON file to write")
    args = parser.parse_args(argv)
    programs: dict[type[Place], str] = {Browser: args.chromium, Node: args.node}
    for place, program in programs.items():
        if program is None:
            raise UserError(f"parity.browser: {INSTALLED[place]}, or set parity.browser to false")
    record = measure(args.model, args.results, args.variants, args.batch_size, programs, args.node_modules)
    write_json(args.output, record)


if __name__ == "__main__":
    run_script(main)
