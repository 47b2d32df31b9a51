"""The table of docs/browser.md, made from records."""

import browser_table


def run_of(variant: str, device: str, error: str | None = None, **metrics: float):
    run = {"variant": variant, "device": device, "sha256": "0" * 64, "loads": error is None, "error": error}
    if error is None:
        difference = {"max_abs_diff": 0.015, "cosine_min": 0.998}
        run["answers"] = {"outputs": {"first": {}, "logits": difference}, "task_metrics": metrics}
    return run


def test_a_row_has_a_cell_for_each_device():
    refused = "onnxruntime cannot run the graph: Program Gather requires f16 but the device does not support it."
    told = f"{'x' * 100} no kernel | none"
    runs = [run_of("fp16", "cpu"), run_of("fp16", "wasm", greedy_token_match=0.5), run_of("fp16", "webgpu", refused)]
    runs += [run_of("w8", "cpu"), run_of("w8", "wasm", told), run_of("w8", "webgpu")]
    record = {"model": "m", "adapter": "a GPU", "versions": {"node": "20.1"}, "runs": runs}

    table = browser_table.as_table([record])

    assert table.splitlines()[0] == "Measured with node 20.1. WebGPU: a GPU."
    assert table.splitlines()[2:] == [
        "| model | variant | `dtype` | Node (`cpu`) | WebAssembly (`wasm`) | WebGPU (`webgpu`) |",
        "| --- | --- | --- | --- | --- | --- |",
        "| m | fp16 | `fp16` | 0.015; 0.998 | 0.015; 0.998; 0.5 | no `shader-f16` |",
        f"| m | w8 |  | 0.015; 0.998 | {'x' * 73} no kernel / none | 0.015; 0.998 |",
    ]


def test_every_variant_goes_by_what_a_program_calls_it():
    names = {variant: browser_table.dtype_of(variant) for variant in browser_table.VARIANTS}
    assert names["int8"] == "`q8`, `int8`"
    assert names["uint8"] == "`uint8`"
    assert {variant for variant, name in names.items() if not name} == {"int8-invariant", "w8"}
