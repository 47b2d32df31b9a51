"""What ``verify.html`` of a release holds, and that its script computes what Python computes."""

import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from conftest import TRANSFORMERS_JS as INSTALLED

from onnxproof.files import integrity_of
from onnxproof.inputs.model_inputs import pack
from onnxproof.parity import answers
from onnxproof.parity.metrics import compare_output
from onnxproof.release.browser_page import (
    MEASURED,
    MEASURES,
    SCRIPT,
    TEMPLATES,
    TRANSFORMERS_JS,
    render_page,
)
from onnxproof.release.golden import GOLDEN_FILE
from onnxproof.tasks.registry import HEADS, TASKS
from onnxproof.vocabulary import METRICS
from records import make_gate, make_prepared, make_released_variant

FILES = {
    name: {"sha256": f"{number:064x}", "size": 1_000_000 * (number + 1)}
    for number, name in enumerate((GOLDEN_FILE, "onnx/model.onnx", "onnx/model_fp16.onnx", "onnx/model_fp16.onnx_data"))
}


def prepared(**changes):
    gate = make_gate(
        {"top1_agreement": 0.99, "max_probability_diff": 0.1, "rank_overlap": 0.9, "batch_cosine_min": 0.9}
    )
    variants = {
        "fp32": make_released_variant(gate=gate),
        "fp16": make_released_variant("onnx/model_fp16.onnx", gate=gate),
    }
    return make_prepared(variants, reference={"outputs": {"logits": {}}}) | changes


def plan_in(page: str) -> dict:
    (text,) = re.findall(r'<script type="application/json" id="plan">(.*?)</script>', page, re.DOTALL)
    return json.loads(text)


def test_a_page_holds_sums_limits_and_what_is_not_announced():
    reason = "does not load: no `shader-f16` </script>"
    manifest = prepared(model="a<b>&c", browser={"failed": {"fp16": {"webgpu": reason}}})
    page = render_page(manifest, "text-classification", FILES)
    assert page == render_page(manifest, "text-classification", FILES)
    assert "<title>a&lt;b&gt;&amp;c in this browser</title>" in page
    assert "It downloads up to 10 MB of this release" in page
    assert "This page does not measure <code>rank_overlap</code>, <code>batch_cosine_min</code>." in page
    plan = plan_in(page)
    assert plan["model"] == "a<b>&c"
    assert plan["kind"] == "classes"
    assert plan["outputs"] == ["logits"]
    assert plan["files"] == FILES
    fp32, fp16 = plan["variants"]
    assert fp32["files"] == ["onnx/model.onnx"]
    assert fp16["files"] == ["onnx/model_fp16.onnx", "onnx/model_fp16.onnx_data"]
    # Of 3 inputs, none of which may be a part of one: 0.99 * 3 is 2 whole ones.
    assert fp32["limits"] == [
        {"metric": "top1_agreement", "allowed": 2 / 3, "at_least": True},
        {"metric": "max_probability_diff", "allowed": 0.1, "at_least": False},
    ]
    assert fp32["not_announced"] == {"wasm": "", "webgpu": ""}
    assert fp16["not_announced"] == {"wasm": "", "webgpu": f"not announced: {reason}"}


def test_the_policy_allows_the_pages_own_script_and_style_alone():
    page = render_page(prepared(), "text-classification", FILES)
    (script,) = re.findall(r'<script type="module">(.*?)</script>', page, re.DOTALL)
    (style,) = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="(.*?)"', page)
    assert policy.replace("&#39;", "'").split("; ") == [
        "default-src 'none'",
        f"script-src '{integrity_of(script)}' blob: 'wasm-unsafe-eval'",
        f"style-src '{integrity_of(style)}'",
        "connect-src 'self' blob: https://cdn.jsdelivr.net/npm/",
        "base-uri 'none'",
        "form-action 'none'",
    ]
    assert page.count("<script") == 2
    assert not re.search(r'(src|href)="', page)


def test_models_that_the_page_cannot_judge_are_not_run():
    variants = {"fp32": make_released_variant(files={"encoder_model.onnx": "onnx/encoder_model.onnx"})}
    (several,) = plan_in(render_page(make_prepared(variants), "text2text-generation", FILES))["variants"]
    assert several["not_run"] == "several graphs: this page runs models of one graph"
    plan = plan_in(render_page(prepared(), "object-detection", FILES))
    assert {variant["not_run"] for variant in plan["variants"]} == {"this page has no measure for object-detection"}
    assert plan["files"].keys() == {GOLDEN_FILE}


def test_the_tables_name_what_there_is():
    assert MEASURES.keys() <= (TASKS | HEADS).keys()
    assert METRICS.keys() >= MEASURED
    assert f"@huggingface/transformers@{TRANSFORMERS_JS}" == INSTALLED


def read_shapes(judged_as: str, random: np.random.Generator) -> dict[str, tuple[int, ...]]:
    """Return the shape of each output of one input of a kind of model."""
    tokens = int(random.integers(3, 9))
    return {
        "sentence-similarity": {"last_hidden_state": (tokens, 5), "sentence_embedding": (5,)},
        "feature-extraction": {"last_hidden_state": (tokens, 5)},
        "image-feature-extraction": {"last_hidden_state": (4, 2, 3)},
        "sentence-similarity by dot": {"sentence_embedding": (5,)},
        "text-classification": {"logits": (4,)},
        "multi-label-classification": {"logits": (4,)},
        "token-classification": {"logits": (tokens, 4)},
        "text-generation": {"logits": (tokens, 11)},
        "question-answering": {"start_logits": (tokens,), "end_logits": (tokens,)},
    }[judged_as]


ASK = """
import { readFileSync } from "node:fs";
const { measure, readNpz, unpack } = await import(process.argv[1]);
const bytes = readFileSync(process.argv[2]);
const arrays = await readNpz(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
const [kind, outputs] = JSON.parse(process.argv[3]);
console.log(JSON.stringify(measure(kind, outputs, unpack(arrays, "output"), unpack(arrays, "made"))));
"""


def ask_script(judged_as: str, expected: list[dict], made: list[dict], folder) -> dict:
    """Return the metrics of the page's script, run in Node, from a file as a release has it."""
    groups = {"output": pack(expected), "made": pack(made)}
    arrays = {f"{group}.{name}": values for group, held in groups.items() for name, values in held.items()}
    np.savez_compressed(folder / "golden.npz", **arrays)
    asked = json.dumps([MEASURES[judged_as], list(expected[0])])
    command = ["node", "--input-type=module", "-e", ASK, (TEMPLATES / SCRIPT).as_uri(), folder / "golden.npz", asked]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
@pytest.mark.parametrize(
    "judged_as",
    [
        *("sentence-similarity", "feature-extraction", "image-feature-extraction", "sentence-similarity by dot"),
        *("text-classification", "multi-label-classification", "token-classification", "text-generation"),
        "question-answering",
    ],
)
def test_the_script_computes_the_gates_metrics(judged_as, tmp_path):
    random = np.random.default_rng(5)
    shapes = [read_shapes(judged_as, random) for _ in range(6)]
    expected = [{name: random.normal(size=size).astype(np.float32) for name, size in item.items()} for item in shapes]
    made = [
        {name: (values + 0.4 * random.normal(size=values.shape)).astype(np.float32) for name, values in item.items()}
        for item in expected
    ]
    told = ask_script(judged_as, expected, made, tmp_path)

    outputs = [{name: [item[name] for item in items] for name in items[0]} for items in (expected, made)]
    read = [answers.read_answers(judged_as, columns, 4) for columns in outputs]
    compared = [compare_output(outputs[0][name], outputs[1][name]) for name in outputs[0]]
    due = answers.measure_answers(judged_as, *read)
    due |= {name: max(output[name] for output in compared) for name in ("max_abs_diff", "max_relative_diff")}
    due = {name: value for name, value in due.items() if name in MEASURED}
    assert told | due == pytest.approx(told, rel=1e-6)
    assert due.keys() <= told.keys()
    assert due["max_abs_diff"] > 0

    made[2][next(iter(made[2]))][...] = np.nan
    assert set(ask_script(judged_as, expected, made, tmp_path).values()) == {None}


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
def test_one_score_is_compared_as_a_rerankers_is(tmp_path):
    random = np.random.default_rng(6)
    expected = [{"logits": random.normal(size=1).astype(np.float32)} for _ in range(7)]
    made = [{"logits": item["logits"] + np.float32(0.5 * random.normal())} for item in expected]
    told = ask_script("text-classification", expected, made, tmp_path)
    due = answers.measure_answers(
        "text-classification", *([item["logits"].reshape(1, 1) for item in items] for items in (expected, made))
    )
    assert 0 < due["order_agreement"] < 1
    assert told | due == pytest.approx(told, rel=1e-6)
