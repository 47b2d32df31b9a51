"""Runtimes that a benchmark compares with write what transformers generates: alone, in copies, and when cut back."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from comparison.generator_peers import save_for_genai, save_gguf
from comparison.generators import save_block_variant
from export import export
from onnxproof.graph.generation import generate_greedily
from onnxproof.graph.sessions import open_session
from optimize import optimize
from project import ROOT

MODEL = ROOT / "examples" / "story-teller-tiny"
SCRIPT = ROOT / "tests" / "support" / "peer_writes.py"
BATCHES = ROOT / "tests" / "support" / "genai_batches.py"
PROMPT = "<|user|>Tell me a story about Mara.<|end|><|assistant|>"
NEW_TOKENS = 24
#: OpenVINO computes in bfloat16 by itself, where the CPU can. llama.cpp is told how much room the texts take.
OPTIONS = {"genai": {}, "openvino": {"precision": "f32"}, "llama": {"most_tokens": 256, "most_texts": 3}}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """Return the checkpoint in float32, the tokens of the prompt, and those that transformers writes after it."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    prompt = AutoTokenizer.from_pretrained(MODEL)(PROMPT, return_tensors="pt", return_token_type_ids=False)
    model = AutoModelForCausalLM.from_pretrained(MODEL, dtype="float32").eval()
    written = model.generate(**prompt, do_sample=False, max_new_tokens=NEW_TOKENS)
    checkpoint = tmp_path_factory.mktemp("checkpoint")
    model.save_pretrained(checkpoint)
    read = prompt["input_ids"][0].tolist()
    tokens = written[0, len(read) :].tolist()
    assert len(tokens) == NEW_TOKENS, "the story goes on"
    return checkpoint, read, tokens


@pytest.fixture(scope="module")
def variants(tmp_path_factory) -> Path:
    """Return a folder with ``fp32``, ``q4`` and ``q4-cpu`` of the model, the latter two rounded to nearest."""
    folder = tmp_path_factory.mktemp("variants")
    export("story-teller", MODEL, "text-generation", folder / "fp32", folder / "fp32.json")
    optimize("story-teller", folder / "fp32", folder / "fp32.json", folder / "optimized", folder / "optimized.json")
    for variant in ("q4", "q4-cpu"):
        (folder / variant).mkdir()
        save_block_variant(folder / "optimized", variant, folder / variant)
    return folder


def ask(python: Path, runtime: str, folder: Path, prompt: list[int]) -> list[list[list[int]]]:
    """Return what ``peer_writes`` prints: the tokens of one text and of three copies, each written twice."""
    command = [python, "-P", SCRIPT, runtime, folder, json.dumps(OPTIONS[runtime]), json.dumps(prompt), str(NEW_TOKENS)]
    run = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 0, run.stderr
    answers: list[list[list[int]]] = json.loads(run.stdout)
    return answers


def in_all_ways(tokens: list[int]) -> list[list[list[int]]]:
    return [[tokens], [tokens], [tokens] * 3, [tokens] * 3]


def greedily(folder: Path, prompt: list[int]) -> list[int]:
    """Return the tokens of a file in onnxruntime."""
    session = open_session(folder / "model.onnx", 1)
    return generate_greedily(session, np.array(prompt), NEW_TOKENS, use_cache=True)


@pytest.mark.parametrize("variant", ["fp32", "q4-cpu"])
def test_onnxruntime_genai(variants, original, genai_python, tmp_path, variant):
    _, prompt, written = original
    save_for_genai(variants / variant, tmp_path)
    expected = written if variant == "fp32" else greedily(tmp_path, prompt)
    assert ask(genai_python, "genai", tmp_path, prompt) == in_all_ways(expected)


@pytest.mark.parametrize("variant", ["fp32", "q4-cpu"])
def test_onnxruntime_genai_writes_after_prompts_of_different_lengths(
    variants, original, genai_python, tmp_path, variant
):
    """With a cache that grows and with one in place, which has room for the longest text."""
    _, prompt, _ = original
    prompts = [prompt, prompt[: len(prompt) // 2], [*prompt, *prompt]]
    save_for_genai(variants / variant, tmp_path)
    settings = json.loads((tmp_path / "genai_config.json").read_text())
    assert settings["search"]["past_present_share_buffer"] == (variant == "q4-cpu")
    assert settings["search"]["max_length"] > 1000
    command = [genai_python, "-P", BATCHES, tmp_path, json.dumps(prompts), str(NEW_TOKENS)]
    run = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 0, run.stderr
    end = settings["model"]["eos_token_id"]
    written = [greedily(tmp_path, each) for each in prompts]
    until = [tokens.index(end) + 1 if end in tokens else len(tokens) for tokens in written]
    assert sum(until) > 2 * NEW_TOKENS, "most texts go on"
    assert [row[:count] for row, count in zip(json.loads(run.stdout), until, strict=True)] == [
        row[:count] for row, count in zip(written, until, strict=True)
    ]


@pytest.mark.parametrize("variant", ["fp32", "q4"])
def test_openvino(variants, original, openvino_python, variant):
    """With ``q4``, which onnxruntime computes in float too."""
    _, prompt, written = original
    expected = written if variant == "fp32" else greedily(variants / variant, prompt)
    assert ask(openvino_python, "openvino", variants / variant, prompt) == in_all_ways(expected)


def test_llama_cpp(original, llama_python, tmp_path):
    checkpoint, prompt, written = original
    save_gguf(checkpoint, llama_python, "F32", tmp_path)
    assert ask(llama_python, "llama", tmp_path, prompt) == in_all_ways(written)


def test_llama_cpp_tells_what_it_cannot_load(llama_python, tmp_path):
    (tmp_path / "model.gguf").write_bytes(b"GGUF, but nothing else")
    command = [llama_python, "-P", SCRIPT, "llama", tmp_path, json.dumps(OPTIONS["llama"]), "[1]", "1"]
    run = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode != 0
    assert f"{tmp_path / 'model.gguf'}: llama.cpp cannot load it" in run.stderr
