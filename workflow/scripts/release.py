"""Put together what is shipped: the proven ONNX files, the tokenizer, a model card and the evidence.

A release holds only variants whose parity gate passed, and only files that are still what was judged.
"""

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

from onnxproof.cli import UserError, run_script
from onnxproof.files import describe_files, read_json, sha256_of, staged_folder, versions_of, write_json, write_text
from onnxproof.onnx_folder import DOCUMENTS, MODEL_FILE, copy_support_files

#: Where each variant goes, in the layout that transformers.js and the Hub use. ``optimized`` only takes the
#: place of ``fp32`` where that is not asked for: onnxruntime fuses the plain graph by itself when it loads it,
#: and every other runtime can load it too.
RELEASED_AS = {
    "fp32": "onnx/model.onnx",
    "int8": "onnx/model_quantized.onnx",
    "int8-invariant": "onnx/model_quantized_invariant.onnx",
}

TEMPLATE = Path(__file__).parent.parent / "resources" / "model_card.md.j2"


def released_files(variants: list[str]) -> dict[str, str]:
    """Return ``{variant: path in the release}`` for the variants that are shipped.

    Raises:
        UserError: none of the variants is one that a release ships.
    """
    files = {variant: RELEASED_AS[variant] for variant in variants if variant in RELEASED_AS}
    if "optimized" in variants and "fp32" not in variants:
        files["optimized"] = RELEASED_AS["fp32"]
    return files


def copy_proven_model(variant: str, results: Path, target: Path) -> None:
    """Copy one variant's ONNX file, checking that it is the file whose parity was measured.

    Raises:
        UserError: the file changed after it was made, or its parity was measured on another one.
    """
    source = results / "onnx" / variant / MODEL_FILE
    made = read_json(results / "onnx" / f"{variant}.json")["files"][MODEL_FILE]["sha256"]
    judged = read_json(results / "parity" / f"{variant}.json")["model_sha256"]
    found = sha256_of(source)
    if not made == judged == found:
        raise UserError(
            f"{source} is not the file that was proven: sha256 {found[:12]}…, made as {made[:12]}…, "
            f"judged as {judged[:12]}…; delete {results / 'onnx' / variant} and run again"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def evidence(variant: str, results: Path) -> dict[str, Any]:
    """Return what was measured on a variant, for the model card and the manifest."""
    parity = read_json(results / "parity" / f"{variant}.json")
    benchmark = read_json(results / "benchmark" / f"{variant}.json")
    manifest = read_json(results / "onnx" / f"{variant}.json")
    return {
        "settings": manifest["settings"],
        "opset": manifest["opset"],
        "parity": {key: parity[key] for key in ("inputs", "task_metrics", "batch_invariance")},
        "gate": (results / "parity" / f"{variant}.ok").read_text(encoding="utf-8").splitlines(),
        "benchmark": {
            "cpu": benchmark["cpu"]["model"],
            "load_ms": benchmark["load_ms"],
            "peak_rss_mb": benchmark["peak_rss_mb"],
            "size_mb": benchmark["size_mb"],
            "cases": speeds(benchmark),
        },
    }


def speeds(benchmark: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a benchmark's cases without raw samples, each with fp32's median time in ms in the same run."""
    cases = [{key: value for key, value in case.items() if key != "samples_ms"} for case in benchmark["cases"]]
    if benchmark["baseline"] is not None:
        for case, baseline in zip(cases, benchmark["baseline"]["cases"], strict=True):
            case["fp32_p50_ms"] = baseline["p50_ms"]
    return cases


def write_model_card(manifest: dict[str, Any], path: Path) -> None:
    """Write the release's README.md in the Hub's model card format."""
    import jinja2

    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    write_text(path, template.render(manifest))


def release(model: str, results: Path, variants: list[str], folder: Path, manifest_file: Path) -> None:
    """Build the release folder of one model and describe it.

    Raises:
        UserError: a file is not the one that was proven.
    """
    source = read_json(results / "source.json")
    shipped = released_files(variants)
    manifest = {
        "model": model,
        "task": read_json(results / "onnx" / f"{variants[0]}.json")["task"],
        "source": {key: value for key, value in source.items() if key not in ("files", "versions", "model")},
        "source_files": source["files"],
        "variants": {variant: {"file": path} | evidence(variant, results) for variant, path in shipped.items()},
    }
    with staged_folder(folder) as stage:
        copy_support_files(results / "onnx" / next(iter(shipped)), stage)
        for pattern in DOCUMENTS:
            if not pattern.startswith(("README", ".")):
                for document in (results / "source").glob(pattern):
                    shutil.copyfile(document, stage / document.name)
        for variant, path in shipped.items():
            copy_proven_model(variant, results, stage / path)
        write_model_card(manifest, stage / "README.md")
        manifest["files"] = describe_files(stage)
        manifest["versions"] = {
            variant: read_json(results / "onnx" / f"{variant}.json")["versions"] for variant in shipped
        } | {"release": versions_of("jinja2")}
        write_json(stage / "manifest.json", manifest)
        files = describe_files(stage)
    write_json(manifest_file, {"model": model, "folder": folder.name, "variants": shipped, "files": files})
    print(json.dumps(shipped), flush=True)


def main(argv: list[str] | None = None) -> None:
    """Parse the command line and build the release."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="the model's name in config.yaml")
    parser.add_argument("--results", type=Path, required=True, help="the model's folder below results/")
    parser.add_argument("--variants", nargs="+", required=True, help="variants whose gate passed")
    parser.add_argument("--output-dir", type=Path, required=True, help="folder to write the release to")
    parser.add_argument("--manifest", type=Path, required=True, help="JSON file to describe it in")
    args = parser.parse_args(argv)
    release(args.model, args.results, args.variants, args.output_dir, args.manifest)


if __name__ == "__main__":
    run_script(main)
