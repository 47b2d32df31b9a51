"""Measure the variants of a model on a GPU: how far they are from PyTorch, and how long they take.

python tools/on_gpu.py results/MODEL [--variants fp32 fp16 q4f16]

Needs the package onnxruntime-gpu and a GPU of NVIDIA's; where there is none, the script says so and ends with status 0.
What it measures are the recorded inputs and answers of a finished run, with the functions of the parity check.
"""

import argparse
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING

import project_path  # noqa: F401
from onnxproof.cli import run_script
from onnxproof.graph.encoder_decoder import files_of_variant, open_graphs
from onnxproof.inputs.reference import read_reference
from onnxproof.parity.answers import run_items
from onnxproof.parity.measure import Sessions, measure_sessions, recorded_inputs

if TYPE_CHECKING:
    from onnxproof.graph.sessions import Session

CUDA = "CUDAExecutionProvider"
BATCH_SIZE = 8
ROUNDS = 5


def open_on_gpu(path: Path) -> "Session":
    """Open a graph on the GPU; what the GPU has no kernel for runs on the CPU."""
    import onnxruntime

    session: Session = onnxruntime.InferenceSession(str(path), providers=[CUDA, "CPUExecutionProvider"])
    return session


def has_gpu() -> bool:
    """Tell whether onnxruntime has the provider, and a device for it."""
    import onnxruntime

    if CUDA not in onnxruntime.get_available_providers():
        return False
    devices = getattr(onnxruntime, "get_ep_devices", list)()
    return not devices or any(device.ep_name == CUDA for device in devices)


def main(argv: list[str] | None = None) -> int:
    """Measure each variant that is there, in turns."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("results", type=Path, help="a model's folder below results/")
    parser.add_argument("--variants", nargs="+", default=["fp32", "fp16", "q4f16"], help="[%(default)s]")
    args = parser.parse_args(argv)
    if not has_gpu():
        print(f"onnxruntime has no {CUDA} here: nothing was measured on a GPU")
        return 0
    reference = read_reference(args.results / "reference", args.results / "reference.json")
    opened: dict[str, Session] = {}
    for variant in args.variants:
        folder = args.results / "onnx" / variant
        if folder.is_dir():
            opened[variant] = open_graphs(files_of_variant(folder), folder, open_on_gpu)
            measured = measure_sessions(variant, Sessions(opened[variant]), reference, BATCH_SIZE)
            print(f"{variant}: {measured.task_metrics}", flush=True)
    seconds: dict[str, list[float]] = {variant: [] for variant in opened}
    for _ in range(ROUNDS + 1):
        for variant, session in opened.items():
            inputs = recorded_inputs(variant, session, reference)
            start = time.perf_counter()
            run_items(session, inputs, reference.manifest["task"], BATCH_SIZE)
            seconds[variant].append(time.perf_counter() - start)
    for variant, times in seconds.items():
        print(f"{variant}: {statistics.median(times[1:]):.3f} s for all inputs in batches of {BATCH_SIZE}")
    return 0


if __name__ == "__main__":
    run_script(main)
