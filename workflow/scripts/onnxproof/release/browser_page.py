"""``verify.html`` in a release: a page that runs the golden inputs with transformers.js in the visitor's own browser.

The page is one file. It holds its script, its style, what it must know of the release, and a policy by which the
browser runs no other script and connects to nothing but the release's own place and the runtime's. The runtime is
pinned: the page runs it only if its bytes have the sha256 that stands here.
"""

import json
from collections.abc import Mapping
from typing import Any

import jinja2

from onnxproof.files import Files, integrity_of
from onnxproof.parity.gate import limits_of_few
from onnxproof.places import RESOURCES
from onnxproof.records.release import PreparedRelease, ReleasedVariant
from onnxproof.release.golden import GOLDEN_FILE
from onnxproof.tasks.registry import HEADS, MULTI_LABEL, SIMILARITIES, TASKS
from onnxproof.vocabulary import METRICS

PAGE = "verify.html"
TEMPLATES = RESOURCES / "verify_page"
TEMPLATE, SCRIPT, STYLE = "verify.html.j2", "verify.mjs", "verify.css"

TRANSFORMERS_JS, ONNXRUNTIME_WEB = "4.3.1", "1.31.0-dev.20260914-8d85527a0"
CDN = "https://cdn.jsdelivr.net/npm"
#: What the page runs: the same files that transformers.js and its onnxruntime load by themselves. The page asks for
#: them in this order: the library, the script of onnxruntime-web, its WebAssembly.
RUNTIME = (
    {
        "name": "transformers.min.js",
        "address": f"{CDN}/@huggingface/transformers@{TRANSFORMERS_JS}/dist/transformers.min.js",
        "sha256": "8d6716d9086f57c30a4bf367dba61b887593573c770c454465e8019b2703e743",
    },
    {
        "name": "ort-wasm-simd-threaded.asyncify.mjs",
        "address": f"{CDN}/onnxruntime-web@{ONNXRUNTIME_WEB}/dist/ort-wasm-simd-threaded.asyncify.mjs",
        "sha256": "0966b6105cd936744498aa60df7a22cbd47af3374dbc64a9ab561c08a71e3611",
    },
    {
        "name": "ort-wasm-simd-threaded.asyncify.wasm",
        "address": f"{CDN}/onnxruntime-web@{ONNXRUNTIME_WEB}/dist/ort-wasm-simd-threaded.asyncify.wasm",
        "sha256": "49871f5a4409519797e127440868a6d1923339d9185907f301a5b2a1d90af082",
    },
)
#: Size of the runtime, in MB of 1e6 bytes.
RUNTIME_MB = 28

#: How the page's script compares the answers of a task, or of what its head makes of it: see ``KINDS`` there.
MEASURES = {
    **dict.fromkeys(("feature-extraction", "sentence-similarity", "image-feature-extraction"), "embeddings"),
    **dict.fromkeys((*SIMILARITIES.values(), "audio-xvector"), "embeddings"),
    **dict.fromkeys(("text-classification", "fill-mask", "multiple-choice"), "classes"),
    **dict.fromkeys(("image-classification", "audio-classification", "zero-shot-image-classification"), "classes"),
    MULTI_LABEL: "labels",
    **dict.fromkeys(("token-classification", "automatic-speech-recognition", "audio-frame-classification"), "tokens"),
    "text-generation": "guesses",
    "question-answering": "spans",
}
#: The metrics that the script computes.
MEASURED = frozenset(
    {
        *("max_abs_diff", "max_relative_diff", "cosine_min", "cosine_mean", "max_norm_diff"),
        *("top1_agreement", "label_agreement", "token_agreement", "next_token_agreement", "span_agreement"),
        *("max_probability_diff", "mean_kl", "next_token_kl", "order_agreement"),
    }
)


def render_page(manifest: PreparedRelease, judged_as: str, files: Files) -> str:
    """Return the page, the same text for the same release.

    Args:
        manifest: what is known of the release.
        judged_as: the task, or what the model's head makes of it, see ``heads.judged_as``.
        files: those that are in the release so far: the ONNX files and the golden inputs are among them.
    """
    plan = plan_of(manifest, judged_as, files)
    script, style = ((TEMPLATES / name).read_text(encoding="utf-8") for name in (SCRIPT, STYLE))
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    judged = {limit["metric"] for facts in manifest["variants"].values() for limit in facts["gate"]["limits"]}
    size = sum(files[path]["size"] for path in plan["files"])
    page: str = environment.get_template(TEMPLATE).render(
        plan=plan,
        policy=policy_of(script, style),
        style=style,
        script=script,
        plan_json=as_data(plan),
        megabytes=f"{size / 1e6:.3g}",
        runtime_megabytes=RUNTIME_MB,
        unmeasured=[metric for metric in METRICS if metric in judged - MEASURED],
    )
    return page


def plan_of(manifest: PreparedRelease, judged_as: str, files: Files) -> dict[str, Any]:
    """Return what the page's script must know: the files with their sha256, the outputs, and the limits."""
    failed = manifest.get("browser", {}).get("failed", {})
    task = (TASKS | HEADS)[judged_as]
    variants = [
        plan_of_variant(name, facts, judged_as, files, failed.get(name, {}), manifest["golden"]["answered"])
        for name, facts in manifest["variants"].items()
    ]
    loaded = [GOLDEN_FILE, *(path for variant in variants if not variant["not_run"] for path in variant["files"])]
    return {
        "model": manifest["model"],
        "kind": MEASURES.get(judged_as),
        "outputs": [name for name in task.outputs if name in manifest["reference"]["outputs"]],
        "per_token": list(task.per_token),
        "golden": GOLDEN_FILE,
        "variants": variants,
        "files": {path: {"sha256": files[path]["sha256"], "size": files[path]["size"]} for path in loaded},
        "runtime": {"version": TRANSFORMERS_JS, "files": list(RUNTIME)},
    }


def plan_of_variant(
    name: str, facts: ReleasedVariant, judged_as: str, files: Files, failed: Mapping[str, str], count: int
) -> dict[str, Any]:
    """Return what the page must know of one variant.

    Args:
        name: of the variant.
        facts: what the manifest says of it.
        judged_as: see ``render_page``.
        files: those of the release.
        failed: why it is not announced, by device, where a browser measured it.
        count: how many inputs the page asks.
    """
    limits = limits_of_few(facts["gate"]["thresholds"], count)
    return {
        "name": name,
        "file": facts["file"],
        "files": [path for path in (facts["file"], f"{facts['file']}_data") if path in files],
        "limits": [
            {"metric": metric, "allowed": allowed, "at_least": METRICS[metric].bound == "at least"}
            for metric, allowed in limits.items()
            if metric in MEASURED
        ],
        "not_run": reason_not_to_run(facts, judged_as),
        "not_announced": {
            device: f"not announced: {failed[device]}" if device in failed else "" for device in ("wasm", "webgpu")
        },
    }


def reason_not_to_run(facts: ReleasedVariant, judged_as: str) -> str:
    """Return why the page cannot judge a variant on any device; empty where it can."""
    if "files" in facts:
        return "several graphs: this page runs models of one graph"
    if judged_as not in MEASURES:
        return f"this page has no measure for {judged_as}"
    return ""


def policy_of(script: str, style: str) -> str:
    """Return the Content-Security-Policy of the page: its own script and style, by their sha256, and no others.

    ``blob:`` scripts are those that the page makes of the runtime, after it has compared its sha256.
    """
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src '{integrity_of(script)}' blob: 'wasm-unsafe-eval'",
            f"style-src '{integrity_of(style)}'",
            f"connect-src 'self' blob: {CDN}/",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )


def as_data(plan: Mapping[str, Any]) -> str:
    """Return JSON that may stand in a script element: no text in it can end the element."""
    return json.dumps(plan, indent=1, ensure_ascii=True, allow_nan=False).replace("<", "\\u003c")
