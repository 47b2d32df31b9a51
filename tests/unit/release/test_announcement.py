"""What a release announces to transformers.js, decided from what a browser answered."""

import json

import pytest

from onnxproof.cli import UserError
from onnxproof.records.browser import BrowserRecord
from onnxproof.release.announcement import (
    announce_dtypes,
    check_measured,
    failures,
    present_dtypes,
    recommended_dtypes,
    sentences,
)
from release import copied_files, released_files

LIMITS = {"fp32": {"cosine_min": 0.99999}, "int8": {"cosine_min": 0.98}, "q4": {"cosine_min": 0.97}}
FILES = {"fp32": "onnx/model.onnx", "int8": "onnx/model_quantized.onnx", "q4": "onnx/model_q4.onnx"}
ALONE = {"batch_size": 8, "inputs": 4, "max_abs_diff": 0.0, "cosine_min": 1.0}


def run_of(variant: str, device: str, cosine: float | None = 1.0, error: str | None = None, loads: bool = True):
    run = {"variant": variant, "device": device, "sha256": variant * 8, "loads": loads, "error": error}
    if error is None:
        invariance = {"batch_size": 8, "max_abs_diff": 0.0, "cosine_min": 1.0}
        run["answers"] = {
            "outputs": {"y": {"max_abs_diff": 0.0, "max_relative_diff": 0.0}},
            "task_metrics": {"cosine_min": cosine},
            "batch_invariance": invariance,
        }
    return run


def record_of(*changed) -> BrowserRecord:
    """Return a record in which every variant answers as PyTorch does on both devices, but for some runs."""
    runs = {(variant, device): run_of(variant, device) for variant in FILES for device in ("wasm", "webgpu")}
    runs |= {(run["variant"], run["device"]): run for run in changed}
    facts = {"model": "m", "task": "sentence-similarity", "inputs": {"count": 4}, "adapter": "a GPU", "versions": {}}
    return {**facts, "runs": list(runs.values())}


def announced(record: BrowserRecord) -> dict[str, str]:
    return recommended_dtypes(record, failures(record, LIMITS, ALONE), FILES)


def test_integers_are_announced_for_webassembly_and_four_bits_for_webgpu():
    assert announced(record_of()) == {"wasm": "q8", "webgpu": "q4"}


@pytest.mark.parametrize(
    "broken",
    [
        run_of("q4", "webgpu", error="no kernel", loads=False),
        run_of("q4", "webgpu", error="no kernel"),
        run_of("q4", "webgpu", cosine=0.96),
        run_of("q4", "webgpu", cosine=None),
    ],
)
def test_what_does_not_answer_within_its_limits_is_not_announced(broken):
    assert announced(record_of(broken)) == {"wasm": "q8", "webgpu": "fp32"}


def test_a_device_on_which_nothing_answers_is_not_named():
    assert announced(record_of(*(run_of(variant, "webgpu", error="no adapter") for variant in FILES))) == {"wasm": "q8"}


def test_node_is_a_device_of_its_own():
    record = record_of(run_of("int8", "cpu"), run_of("fp32", "cpu"))
    assert announced(record) == {"cpu": "q8", "wasm": "q8", "webgpu": "q4"}
    record = record_of(run_of("int8", "cpu", cosine=0.5), run_of("fp32", "cpu"))
    assert announced(record)["cpu"] == "fp32"
    assert sentences(failures(record, LIMITS, ALONE), FILES) == [
        "`onnx/model_quantized.onnx` is not announced for Node. There it differs from the original: "
        "cosine_min: measured 0.5, allowed >= 0.98"
    ]


@pytest.mark.parametrize(
    ("variants", "named"),
    [
        (["fp32", "int8"], {}),
        (["fp32", "q4"], {"wasm": "q4"}),
        (["fp32", "fp16"], {"wasm": "fp32"}),
        (["fp32", "uint8"], {}),  # uint8 stands in for q8
        (["int8"], {"cpu": "q8", "webgpu": "q8"}),
        (["fp16", "q4f16"], {"cpu": "fp16", "wasm": "fp16", "webgpu": "q4f16"}),
        (["w8"], {}),
    ],
)
def test_a_device_does_not_look_for_a_file_that_is_not_there(variants, named):
    shipped = released_files(variants)
    assert present_dtypes([*shipped.values(), *copied_files(shipped).values()], {}) == named
    assert present_dtypes(shipped.values(), dict.fromkeys(("cpu", "wasm", "webgpu"), "fp32")) == {}


@pytest.mark.parametrize(
    ("variants", "copied"),
    [
        (["fp32", "int8"], {"int8": "onnx/model_int8.onnx"}),
        (["int8", "uint8"], {"int8": "onnx/model_int8.onnx"}),
        (["fp32", "uint8"], {"uint8": "onnx/model_quantized.onnx"}),
        (["fp32", "q4"], {}),
    ],
)
def test_every_name_of_int8_is_in_a_release_once(variants, copied):
    shipped = released_files(variants)
    assert copied_files(shipped) == copied
    assert len({*shipped.values(), *copied.values()}) == len(shipped) + len(copied)


def test_the_card_says_in_one_line_what_is_not_announced():
    record = record_of(
        run_of("q4", "wasm", error="GatherBlockQuantized is not implemented", loads=False),
        run_of("fp32", "webgpu", error="key_padding_mask is not implemented"),
        run_of("int8", "webgpu", cosine=0.5),
    )
    assert sentences(failures(record, LIMITS, ALONE), FILES) == [
        "`onnx/model.onnx` is not announced for WebGPU. There it cannot be run: key_padding_mask is not implemented",
        "`onnx/model_quantized.onnx` is not announced for WebGPU. There it differs from the original: "
        "cosine_min: measured 0.5, allowed >= 0.98",
        "`onnx/model_q4.onnx` is not announced for WebAssembly. There it does not load: "
        "GatherBlockQuantized is not implemented",
    ]


def test_the_dtypes_stand_beside_other_settings(tmp_path):
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"transformers.js_config": {"use_external_data_format": {"model.onnx": 1}}}))
    announce_dtypes(tmp_path, {"wasm": "q8", "webgpu": "q4"})
    assert json.loads(config.read_text())["transformers.js_config"] == {
        "use_external_data_format": {"model.onnx": 1},
        "device_config": {"wasm": {"dtype": "q8"}, "webgpu": {"dtype": "q4"}},
    }


def test_only_the_files_that_were_measured_are_announced():
    with pytest.raises(UserError) as error:
        check_measured(record_of(), {"fp32": "0123456789abcdef"})
    assert str(error.value) == (
        "m fp32: a browser measured fp32fp32fp32, released is 0123456789ab; delete parity/browser.json and run again"
    )
