"""The comparison of language models: the files hold what the page says, and the page tells every contender."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

from comparison.generator_peers import room_for
from comparison.generators import BLOCKS_OF_OTHERS, SKIPPED, render_page, save_block_variant, save_with_onnxruntime
from graphs import FLOAT, INT64, build
from onnxproof.benchmark.generation import WritingPlan
from records import make_step, make_writing

WORDS, WIDTH = 512, 64


@pytest.fixture
def write(tmp_path):
    """Write a table of embeddings, one product, and a head that is the table again: turned, or a turned copy of it."""

    def write_folder(with_copy):
        rng = np.random.default_rng(0)
        constants = {
            "table": rng.normal(size=(WORDS, WIDTH)).astype(np.float32),
            "weight": rng.normal(size=(WIDTH, WIDTH)).astype(np.float32),
        }
        nodes = [
            helper.make_node("Gather", ["table", "input_ids"], ["embedded"], name="embed"),
            helper.make_node("MatMul", ["embedded", "weight"], ["hidden"], name="product"),
            helper.make_node("MatMul", ["hidden", "head"], ["logits"], name="tied"),
        ]
        if with_copy:
            constants["head"] = np.ascontiguousarray(constants["table"].T)
        else:
            nodes.insert(0, helper.make_node("Transpose", ["table"], ["head"], name="turn", perm=[1, 0]))
        model = build(nodes, {"input_ids": (INT64, ["b", "s"])}, {"logits": (FLOAT, ["b", "s", WORDS])}, constants)
        made = tmp_path / "made"
        made.mkdir()
        onnx.save(model, made / "model.onnx")
        (made / "config.json").write_text('{"model_type": "gpt2"}')
        return made

    return write_folder


def answers(path):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {"input_ids": np.arange(12).reshape(2, 6)})[0]


def formats(path):
    nodes = onnx.load(path).graph.node
    attributes = [{each.name: each.i for each in node.attribute} for node in nodes if node.op_type == "MatMulNBits"]
    return [(each["bits"], each["block_size"], each.get("accuracy_level", 0)) for each in attributes]


@pytest.mark.parametrize(("variant", "bits", "level"), [("w8", 8, 4), ("q4", 4, 0), ("q4-cpu", 4, 4)])
def test_our_files_have_the_blocks_that_the_page_names(write, tmp_path, variant, bits, level):
    folder = write(with_copy=True)  # as the optimizer leaves it
    out = tmp_path / variant
    out.mkdir()
    save_block_variant(folder, variant, out)
    assert (bits, 128, level) in formats(out / "model.onnx"), "the product"
    assert len(formats(out / "model.onnx")) == 2
    assert np.corrcoef(answers(out / "model.onnx").ravel(), answers(folder / "model.onnx").ravel())[0, 1] > 0.98
    assert sorted(path.name for path in out.iterdir()) == ["config.json", "model.onnx"]


@pytest.mark.parametrize("block", BLOCKS_OF_OTHERS)
@pytest.mark.parametrize("level", [0, 4])
def test_the_public_quantizer_gets_the_tied_head_as_a_constant(write, tmp_path, level, block):
    folder = write(with_copy=False)  # as it is exported
    out = tmp_path / "public"
    out.mkdir()
    save_with_onnxruntime(level, block, folder, out)
    assert formats(out / "model.onnx") == [(4, block, level)] * 2
    assert np.corrcoef(answers(out / "model.onnx").ravel(), answers(folder / "model.onnx").ravel())[0, 1] > 0.98


def test_the_page_tells_winners_losers_and_who_was_left_out():
    fp32 = [make_step("first_token", 1, 32, 40.0), make_step("next_token", 8, 128, 20.0)]
    rival = [make_step("first_token", 1, 32, 10.0, 40.0), make_step("next_token", 8, 128, 40.0, 20.0)]
    rival[1]["peak_rss_mb"] = 400.0
    ours = [make_step("first_token", 1, 32, 20.0, 40.0)]
    record = {
        "shape": "qwen3-2x256-4096",
        "threads": 2,
        "cpu": {"model": "A CPU"},
        "contenders": {
            "fp32": {"measured": "2026-11-28", "size_mb": 100.4, "generation": make_writing(fp32)},
            "q4": {"measured": "2026-11-28", "size_mb": 12.6, "generation": make_writing(ours, fp32)},
            "rival": {"measured": "2026-11-27", "size_mb": 15.0, "generation": make_writing(rival, fp32)},
            "PyTorch bf16": {"skipped": "no such type here"},
        },
        "skipped": SKIPPED,
        "versions": {"onnxruntime": "1.32.0"},
    }
    lines = render_page([record]).splitlines()
    peaks = "peak RSS, 1x32, MB | peak RSS, 8x128, MB"
    assert f"| contender | first token, 1x32 | next token, 8x128 | MB | {peaks} | measured |" in lines
    assert (
        "| fp32 | 1.00 (1.00–1.00), 40.0 ms, 800/s | 1.00 (1.00–1.00), 20.0 ms, 400/s | 100 | 190 | 190 | 2026-11-28 |"
        in lines
    )
    assert "| **q4** | 2.00 (1.90–2.12), 20.0 ms, 1600/s | – | 13 | 190 | – | 2026-11-28 |" in lines
    assert (
        "| rival | 4.00 (3.80–4.24), 10.0 ms, 3200/s | 0.50 (0.47–0.53), 40.0 ms, 200/s | 15 | 190 | 400 | 2026-11-27 |"
        in lines
    )
    trial = (
        "Layers x channels - tokens of the vocabulary; 2 threads of A CPU. A trial: Qwen3-0.6B is qwen3-28x1024-151936."
    )
    assert trial in lines
    assert "A trial" not in render_page([record | {"shape": "qwen3-28x1024-151936"}])
    assert "- PyTorch bf16: no such type here." in lines
    assert sum(line.startswith("- ") for line in lines) == len(SKIPPED) + 1


def test_llama_cpp_has_room_for_the_longest_case():
    plan = WritingPlan(prompt_lengths=[32, 512], context_lengths=[128], batch_sizes=[1, 8], new_tokens=8)
    assert room_for(plan) == {"most_tokens": 8 * (128 + 8 + 1), "most_texts": 8}
    alone = WritingPlan(prompt_lengths=[2048], context_lengths=[128], batch_sizes=[1], new_tokens=8)
    assert room_for(alone) == {"most_tokens": 2048 + 8 + 1, "most_texts": 1}
