"""A trained language model in every form: sizes and perplexities, held to the original outside the pipeline."""

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from onnxproof.graph.generation import generate_greedily
from onnxproof.graph.sessions import open_session
from project import ROOT, make_project

EXAMPLES = ROOT / "examples"
NAME = "story-teller-tiny"
#: Of each variant, the largest share of fp32's size, and the largest ratio of perplexities.
LIMITS = {"fp16": (0.51, 1.002), "w8": (0.29, 1.002), "q4": (0.18, 1.02), "q4-cpu": (0.18, 1.02), "q4f16": (0.18, 1.02)}
STORIES = 100
NEW_TOKENS = 32
GENAI_PROGRAM = ROOT / "tools" / "genai_generates.py"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Path:
    """The results of the committed example, up to its release."""
    project = make_project(tmp_path_factory.mktemp("stories"))
    config = yaml.safe_load((EXAMPLES / "story-teller.yaml").read_text(encoding="utf-8"))
    model = config["models"][NAME]
    model["source"]["path"] = str(ROOT / model["source"]["path"])
    model["quantization"]["calibration_texts"] = str(ROOT / model["quantization"]["calibration_texts"])
    model["parity"]["evaluation_texts"] = str(ROOT / model["parity"]["evaluation_texts"])
    model["evaluation"] = {"data": str(EXAMPLES / "story-heldout.jsonl"), "max_inputs": STORIES, "not_worse_by": 0.05}
    model["variants"] = ["fp32", *LIMITS]
    short = {"rounds": 1, "iterations": 1, "warmup": 0, "load_repeats": 1, "seconds_per_case": 1}
    project.configure({"models": config["models"], "benchmark": short | {"sequence_lengths": [16]}})
    run = project.snakemake(f"results/{NAME}/release")
    assert run.returncode == 0, run.stdout
    return project.folder / "results" / NAME


@pytest.fixture(scope="module")
def token_ids() -> list[list[int]]:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(EXAMPLES / NAME)
    lines = (EXAMPLES / "story-heldout.jsonl").read_text(encoding="utf-8").splitlines()[:STORIES]
    return [tokenizer(json.loads(line)["text"])["input_ids"] for line in lines]


def perplexity(losses: list[np.ndarray]) -> float:
    return math.exp(float(np.concatenate(losses).mean()))


def losses_of(logits: np.ndarray, ids: list[int]) -> np.ndarray:
    """Return the loss in nats of each token but the first, from logits (tokens, vocabulary)."""
    logits = logits[:-1].astype(np.float64)
    logits -= logits.max(axis=-1, keepdims=True)
    return np.log(np.exp(logits).sum(axis=-1)) - logits[np.arange(len(ids) - 1), ids[1:]]


@pytest.fixture(scope="module")
def original(token_ids) -> float:
    """The perplexity by transformers."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(EXAMPLES / NAME, dtype=torch.float32).eval()
    with torch.inference_mode():
        return perplexity([losses_of(model(torch.tensor([ids])).logits[0].numpy(), ids) for ids in token_ids])


def perplexity_of_file(file: Path, token_ids: list[list[int]]) -> float:
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    losses = []
    for ids in token_ids:
        feed = {
            "input_ids": np.array([ids]),
            "attention_mask": np.ones((1, len(ids)), dtype=np.int64),
            "position_ids": np.arange(len(ids))[None],
        }
        for value in session.get_inputs():
            if value.name not in feed:
                heads, size = value.shape[1], value.shape[3]
                feed[value.name] = np.zeros((1, heads, 0, size), dtype=np.float32)
        known = {value.name for value in session.get_inputs()}
        feed = {name: values for name, values in feed.items() if name in known}
        losses.append(losses_of(session.run(["logits"], feed)[0][0], ids))
    return perplexity(losses)


def test_fp32_has_the_perplexity_of_the_original(results, token_ids, original):
    assert perplexity_of_file(results / "onnx/fp32/model.onnx", token_ids) == pytest.approx(original, rel=1e-6)


@pytest.mark.parametrize("variant", LIMITS)
def test_a_variant_is_small_and_hardly_more_perplexed(results, token_ids, original, variant):
    share, ratio = LIMITS[variant]
    file = results / f"onnx/{variant}/model.onnx"
    assert file.stat().st_size <= share * (results / "onnx/fp32/model.onnx").stat().st_size
    measured = perplexity_of_file(file, token_ids) / original
    assert measured <= ratio
    parity = json.loads((results / f"parity/{variant}.json").read_text())
    assert parity["task_metrics"]["perplexity_ratio"] == pytest.approx(measured, abs=3e-3)
    assert parity["emulates_float16"] == (variant in ("fp16", "q4f16"))


def test_the_perplexity_of_the_release_is_measured_again(results, original):
    release = results / "release"
    command = [sys.executable, release / "verify_release.py", "--threads", "1"]
    verified = subprocess.run(
        [*command, "--labelled", EXAMPLES / "story-heldout.jsonl"], check=False, capture_output=True, text=True
    )
    assert verified.returncode == 0, verified.stdout + verified.stderr
    manifest = json.loads((release / "manifest.json").read_text())
    recorded = {facts["file"]: facts["evaluation"]["value"] for facts in manifest["variants"].values()}
    assert recorded["onnx/model.onnx"] == pytest.approx(original, rel=1e-6)
    lines = verified.stdout.splitlines()
    for file, value in recorded.items():
        assert f"{file}: perplexity {value:.4g} on {STORIES} inputs: the recorded figure holds" in lines


@pytest.mark.parametrize("variant", ["fp16", "q4f16"])
def test_a_graph_in_float16_comes_with_the_bounds_of_its_nodes(results, variant):
    certificate = json.loads((results / f"onnx/{variant}.json").read_text())["settings"]["float16"]
    assert len(certificate["nodes"]) > 100
    for name, node in certificate["nodes"].items():
        fits = node["largest"] * certificate["margin"] <= 65504 and not node["lost"]
        assert fits or node["float32"], name
    assert any(node["float32"] for node in certificate["nodes"].values()), "its residual stream has large values"


@pytest.mark.parametrize("file", [None, "onnx/model.onnx"])
def test_the_release_runs_in_onnxruntime_genai_as_it_is(results, genai_python, tmp_path, file):
    """With the file that the release names, and with fp32, whose tokens are those of the original's ``generate``."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    chat = "<|user|>Tell me a story about Mara.<|end|><|assistant|>"
    folder = tmp_path / "release"
    shutil.copytree(results / "release", folder)
    settings = json.loads((folder / "genai_config.json").read_text())
    decoder = settings["model"]["decoder"]
    assert decoder["filename"] == "onnx/model_q4_cpu.onnx"
    if file:
        decoder["filename"] = file
        assert settings["search"]["past_present_share_buffer"] is True
        settings["search"]["past_present_share_buffer"] = False  # which that file cannot do
        (folder / "genai_config.json").write_text(json.dumps(settings))
    written = subprocess.run(
        [str(genai_python), str(GENAI_PROGRAM), str(folder), chat, str(NEW_TOKENS)], check=True, capture_output=True
    )
    prompt, made = json.loads(written.stdout)
    tokenizer = AutoTokenizer.from_pretrained(EXAMPLES / NAME)
    expected = tokenizer(chat, return_tensors="pt", return_token_type_ids=False)
    assert prompt == expected["input_ids"][0].tolist()
    if file:
        model = AutoModelForCausalLM.from_pretrained(EXAMPLES / NAME, dtype="float32").eval()
        tokens = model.generate(**expected, do_sample=False, max_new_tokens=NEW_TOKENS)[0, len(prompt) :].tolist()
    else:
        session = open_session(folder / decoder["filename"], 1)
        tokens = generate_greedily(session, np.array(prompt), NEW_TOKENS, use_cache=True)
    assert made == tokens
