"""Other runtimes and public tools that a comparison of language models knows, and the files that they make."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from comparison.contenders import make_once, optimum_preset, save_peer
from comparison.generators import BLOCKS_OF_OTHERS, OURS_IN_GENAI
from comparison.peers import quantize_with_onnxruntime, quantize_with_optimum
from onnxproof.benchmark.generation import WritingPlan
from onnxproof.benchmark.timing import Contender
from onnxproof.cli import UserError
from onnxproof.graph.files import MODEL_FILE
from onnxproof.graph.support_files import copy_support_files
from onnxproof.original.exporters.optimum import run_printing
from onnxproof.release.genai import write_genai_config

HERE = Path(__file__).parent
#: The types of llama.cpp that are compared: 8 bits, and the 4 bits that its authors recommend.
GGUF_KINDS = ("Q8_0", "Q4_K_M")


@dataclass(frozen=True)
class Environments:
    """The interpreters of the runtimes' environments; None leaves their contenders out."""

    openvino: Path | None
    genai: Path | None
    llama: Path | None


def run_tool(name: str, *command: str | Path) -> None:
    """Run a tool in its own environment.

    Raises:
        UserError: it fails; the message holds the last line that it printed.
    """
    status, last = run_printing([str(word) for word in command], dict(os.environ))
    if status:
        raise UserError(f"{name} ended with {status}: {last[:300]}")


def save_genai(source: Path, python: Path, block_size: int, folder: Path) -> None:
    """Write what onnxruntime-genai's own builder makes of a checkpoint for the CPU: 4 bits, else its defaults.

    The builder needs torch and transformers, which its environment lacks: this interpreter runs it.
    """
    code = "import importlib.util as i; print(i.find_spec('onnxruntime_genai').submodule_search_locations[0])"
    package = subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout.strip()
    builder = Path(package) / "models" / "builder.py"
    # The builder empties its cache folder, and writes nothing into it for a local checkpoint.
    run_tool(
        "onnxruntime-genai's builder",
        sys.executable,
        "-P",
        "-c",
        f"import runpy, sys; sys.path.insert(0, {str(builder.parent)!r}); "
        f"sys.argv = ['builder.py', *sys.argv[1:]]; runpy.run_path({str(builder)!r}, run_name='__main__')",
        "-i",
        source,
        "-m",
        "none",
        "-o",
        folder,
        "-p",
        "int4",
        "-e",
        "cpu",
        "-c",
        folder / "cache",
        "--extra_options",
        f"block_size={block_size}",
    )


def save_for_genai(variant: Path, folder: Path) -> None:
    """Write a variant of ours as a release has it, for onnxruntime-genai to run."""
    shutil.copytree(variant, folder, dirs_exist_ok=True)
    write_genai_config(folder, {variant.name: MODEL_FILE})


def save_nncf_weights(source: Path, python: Path, mode: str, folder: Path) -> None:
    """Write what NNCF's compression of weights makes of the fp32 graph, see ``nncf_compress``."""
    run_tool("NNCF", python, "-P", HERE / "nncf_compress.py", source / MODEL_FILE, mode, folder / "model.xml")
    copy_support_files(source, folder)


def save_gguf(source: Path, python: Path, kind: str, folder: Path) -> None:
    """Write what llama.cpp makes of a checkpoint, see ``llama_quantize``."""
    run_tool("llama.cpp", python, "-P", HERE / "llama_quantize.py", source, folder, kind)


def room_for(plan: WritingPlan) -> dict[str, int]:
    """Return how many tokens of how many texts llama.cpp keeps room for in its cache: those of the longest case.

    A turn of next tokens begins with one that is not timed.
    """
    longest = max(case.batch * (case.context + plan.new_tokens + 1) for case in plan.cases())
    return {"most_tokens": longest, "most_texts": max(plan.batch_sizes)}


def public_tools(
    shape: str, source: Path, fp32: Path, folder: Path, given: Environments, plan: WritingPlan
) -> Iterator[Contender]:
    """Yield the contenders that others wrote, their files made where they are missing; ``plan`` is what is timed."""
    per_tensor = quantize_with_optimum(optimum_preset(), per_channel=False)
    for name, quantize in (("onnxruntime dynamic int8", quantize_with_onnxruntime), ("Optimum int8", per_tensor)):
        made = make_once(folder / name.replace(" ", "-"), partial(save_peer, fp32, quantize))
        yield Contender(shape, name, "onnx", made)
    if given.genai is not None:
        python = str(given.genai)
        for block in BLOCKS_OF_OTHERS:
            made = make_once(folder / f"genai-int4-{block}", partial(save_genai, source, given.genai, block))
            yield Contender(shape, f"onnxruntime-genai int4, blocks of {block}", "genai", made, python=python)
        own = make_once(folder / "genai-q4-cpu", partial(save_for_genai, folder / "q4-cpu"))
        yield Contender(shape, OURS_IN_GENAI, "genai", own, python=python)
    if given.openvino is not None:
        python = str(given.openvino)
        yield Contender(shape, "OpenVINO", "openvino", fp32, python=python)
        for mode in ("int8_asym", "int4_asym"):
            made = make_once(folder / f"nncf-{mode}", partial(save_nncf_weights, fp32, given.openvino, mode))
            yield Contender(shape, f"OpenVINO, NNCF {mode}", "openvino", made, python=python)
    if given.llama is not None:
        for kind in GGUF_KINDS:
            made = make_once(folder / f"gguf-{kind}", partial(save_gguf, source, given.llama, kind))
            yield Contender(shape, f"llama.cpp {kind}", "llama", made, options=room_for(plan), python=str(given.llama))
