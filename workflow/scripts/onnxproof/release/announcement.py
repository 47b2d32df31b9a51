"""What a release tells transformers.js of its files: those that were measured to load and answer there.

transformers.js reads ``transformers.js_config`` in ``config.json``. Where a program names no ``dtype``, or ``auto``, it
takes that of ``device_config.{device}.dtype`` for the device that it runs on (``src/models/session.js`` of 4.3.1). One
``dtype`` is for all graphs of a model: a variant has all of them, and they were measured together.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from onnxproof.cli import UserError
from onnxproof.files import read_json, write_json
from onnxproof.parity.gate import judge, limits_of_few
from onnxproof.records.browser import BrowserRecord, BrowserRun
from onnxproof.records.common import Limits
from onnxproof.records.reference import OwnInvariance

#: What transformers.js calls the files of a variant; it has no name for the others.
DTYPES = {
    "fp32": "fp32",
    "optimized": "fp32",
    "int8": "q8",
    "uint8": "uint8",
    "q4": "q4",
    "fp16": "fp16",
    "q4f16": "q4f16",
}
#: The file that each ``dtype`` loads of a model of one graph; the names of several graphs end alike.
DTYPE_FILES = {
    "fp32": "onnx/model.onnx",
    "fp16": "onnx/model_fp16.onnx",
    "q8": "onnx/model_quantized.onnx",
    "int8": "onnx/model_int8.onnx",
    "uint8": "onnx/model_uint8.onnx",
    "q4": "onnx/model_q4.onnx",
    "q4f16": "onnx/model_q4f16.onnx",
}
#: What is recommended on each device, the best first. CPUs and WebAssembly compute with integers, WebGPU with floats.
PREFERRED = {
    "cpu": ("q8", "uint8", "fp32", "q4", "fp16", "q4f16"),
    "wasm": ("q8", "uint8", "q4", "fp32", "fp16", "q4f16"),
    "webgpu": ("q4f16", "fp16", "q4", "fp32", "q8", "uint8"),
}
#: What transformers.js takes on each device where nothing is announced.
DEFAULTS = {"cpu": "fp32", "wasm": "q8", "webgpu": "fp32"}
DEVICE_NAMES = {"cpu": "Node", "wasm": "WebAssembly", "webgpu": "WebGPU"}


def failures(
    record: BrowserRecord, thresholds: Mapping[str, Limits], own_invariance: OwnInvariance
) -> dict[tuple[str, str], str]:
    """Return why variants are not announced for devices, by both names; those that are announced are left out.

    Args:
        record: what was measured.
        thresholds: the limits of each variant, as its gate has them.
        own_invariance: what a batch changes in the original's own answers.
    """
    found: dict[tuple[str, str], str] = {}
    for run in record["runs"]:
        if reason := _failure(run, record, thresholds[run["variant"]], own_invariance):
            found[run["variant"], run["device"]] = reason
    return found


def _failure(run: BrowserRun, record: BrowserRecord, limits: Limits, own_invariance: OwnInvariance) -> str:
    if "answers" not in run:
        return f"{'cannot be run' if run['loads'] else 'does not load'}: {run['error']}"
    held = {metric: allowed for metric, allowed in limits.items() if allowed is not None}
    verdicts = judge(
        {
            "model": record["model"],
            "variant": run["variant"],
            "task": record["task"],
            **run["answers"],
            "reference_batch_invariance": own_invariance,
        },
        limits_of_few(held, record["inputs"]["count"]),
    )
    return "; ".join(str(verdict) for verdict in verdicts if not verdict.passed)


def recommended_dtypes(
    record: BrowserRecord, failed: Mapping[tuple[str, str], str], shipped: Mapping[str, str]
) -> dict[str, str]:
    """Return the dtype that transformers.js is to take on each device; a device on which nothing answers is left out.

    Args:
        record: what was measured.
        failed: see ``failures``.
        shipped: the file of each variant of the release.
    """
    found = {}
    for device, dtypes in PREFERRED.items():
        answered = {
            DTYPES[run["variant"]]
            for run in record["runs"]
            if run["device"] == device
            and run["variant"] in DTYPES
            and run["variant"] in shipped
            and (run["variant"], device) not in failed
        }
        best = next((dtype for dtype in dtypes if dtype in answered), None)
        if best is not None:
            found[device] = best
    return found


def present_dtypes(paths: Collection[str], announced: Collection[str]) -> dict[str, str]:
    """Return the dtype for each device on which transformers.js would look for a file that a release does not have.

    Args:
        paths: the files of the release, see ``DTYPE_FILES``.
        announced: the devices that have a dtype anyway.
    """
    return {
        device: present[0]
        for device, dtypes in PREFERRED.items()
        if device not in announced
        and DTYPE_FILES[DEFAULTS[device]] not in paths
        and (present := [dtype for dtype in dtypes if DTYPE_FILES[dtype] in paths])
    }


def announce_dtypes(folder: Path, dtypes: Mapping[str, str]) -> dict[str, str]:
    """Name the dtype for each device in the ``config.json`` of a release.

    No device is named: a page without WebGPU is to load the release too.

    Returns:
        ``{file: what was changed}``, empty where there is none to name.
    """
    if not dtypes:
        return {}
    tell_transformers_js(folder, {"device_config": {device: {"dtype": dtype} for device, dtype in dtypes.items()}})
    return {"config.json": "transformers.js_config names the dtype for each device"}


def tell_transformers_js(folder: Path, told: dict[str, Any]) -> None:
    """Add to ``transformers.js_config`` in the ``config.json`` of a release."""
    config = read_json(folder / "config.json")
    settings: Any = config.get("transformers.js_config")
    config["transformers.js_config"] = (settings if isinstance(settings, dict) else {}) | told
    write_json(folder / "config.json", config)


def check_measured(record: BrowserRecord, proven: Mapping[str, str]) -> None:
    """Check that a browser measured the very files that are released.

    Args:
        record: what was measured.
        proven: the sha256 of each variant, see ``Evidence``.

    Raises:
        UserError: it measured another file, or did not measure one.
    """
    measured = {run["variant"]: run["sha256"] for run in record["runs"]}
    for variant, sha256 in proven.items():
        if measured.get(variant) != sha256:
            raise UserError(
                f"{record['model']} {variant}: a browser measured {measured.get(variant, 'no such file')[:12]}, "
                f"released is {sha256[:12]}; delete parity/browser.json and run again"
            )


def sentences(failed: Mapping[tuple[str, str], str], shipped: Mapping[str, str]) -> list[str]:
    """Return a line of the model card for each released file and device that is not announced."""
    return [
        f"`{shipped[variant]}` is not announced for {DEVICE_NAMES[device]}. There it {_told(reason)}"
        for (variant, device), reason in failed.items()
        if variant in shipped
    ]


def reasons_by_variant(failed: Mapping[tuple[str, str], str], shipped: Collection[str]) -> dict[str, dict[str, str]]:
    """Return why a released variant is not announced, ``{variant: {device: reason}}``."""
    found: dict[str, dict[str, str]] = {}
    for (variant, device), reason in failed.items():
        if variant in shipped:
            found.setdefault(variant, {})[device] = _told(reason)
    return found


def _told(reason: str) -> str:
    known = reason.startswith(("does not load", "cannot be run"))
    return reason if known else f"differs from the original: {reason}"
