"""Whether the same configuration and lock make the same bytes again: `make reproduce` and `make golden`.

Timings are the one thing that may differ. `python tools/reproduction.py --help` lists what can be compared.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = ROOT / "tests" / "golden.json"
#: Variants whose bytes depend on the lock alone. int8 also depends on what onnxruntime computes on calibration
#: texts, which may round differently on another CPU: add it here only for one kind of machine.
GOLDEN_VARIANTS = ("fp32", "optimized")
#: What a change of the bytes usually comes from, besides the recipe.
GOLDEN_LIBRARIES = ("accelerate", "onnx", "onnx-ir", "onnxruntime", "onnxscript", "torch", "transformers")

#: Files made of timings: that they exist is all that can be reproduced.
TIMED = (
    "summary.csv",
    "report.html",
    "*/release/README.md",
    "*/benchmark/*.json",
    "*/benchmark/*/*.json",
    "*/cost/*.tsv",
    "*/audits/*/audit.md",
)
#: JSON with timings among other things, and how these are cut out.
PARTLY_TIMED = (
    *("*/release.json", "*/release/manifest.json", "*/onnx/*.json"),
    *("*/evaluation/*.json", "*/evaluation/answers/*.json", "*/audits/*/audit.json"),
)
#: Lines of checksums, those of files with timings among them.
SUMS = "*/release/SHA256SUMS"
#: The files of a release that hold timings, or checksums of such files.
TIMED_OF_RELEASE = ("README.md", "manifest.json", "SHA256SUMS")
#: Not reproducible by nature (logs), or no part of the results.
LEFT_OUT = ("logs", ".snakemake_timestamp")

#: Two places, core counts, hash seeds, locales and time zones.
SURROUNDINGS = (
    ("first", 1, {"PYTHONHASHSEED": "1", "LC_ALL": "C", "TZ": "UTC"}),
    ("a second place/deeper", 2, {"PYTHONHASHSEED": "20261", "LC_ALL": "C.UTF-8", "TZ": "Asia/Kolkata"}),
)
#: The benchmark's length changes no byte that is compared.
SHORT_BENCHMARK = {"rounds": 1, "iterations": 1, "warmup": 0, "load_repeats": 1, "seconds_per_case": 1}


def digest(path: Path, results: Path) -> str:
    """Return a file's sha256, of what is left without timings; "timed" where nothing is."""
    name = path.relative_to(results)
    if any(name.match(pattern) for pattern in TIMED):
        return "timed"
    content = path.read_bytes()
    if any(name.match(pattern) for pattern in PARTLY_TIMED):
        content = json.dumps(without_timings(json.loads(content))).encode()
    if name.match(SUMS):
        lines = content.decode().splitlines()
        content = "\n".join(line for line in lines if line.split("  ")[1] not in TIMED_OF_RELEASE).encode()
    return hashlib.sha256(content).hexdigest()


def without_timings(content: Any) -> Any:
    """Return JSON without benchmarks, recommendations, speeds, seconds, and what describes files with them."""
    if isinstance(content, list):
        return [without_timings(entry) for entry in content]
    if not isinstance(content, dict):
        return content
    timed = {"benchmark", "recommended", "speedup", "seconds", *TIMED_OF_RELEASE}
    return {key: without_timings(value) for key, value in content.items() if key not in timed}


def digests(results: Path) -> dict[str, str]:
    """Return the digest of every file of a results folder, by its path, sorted."""
    names = sorted(path.relative_to(results) for path in results.rglob("*") if path.is_file())
    kept = [name for name in names if not set(LEFT_OUT) & set(name.parts)]
    return {name.as_posix(): digest(results / name, results) for name in kept}


def compare(first: dict[str, str], second: dict[str, str]) -> list[str]:
    """Print one line a file; return the paths whose digests differ, or that only one side has."""
    different = []
    for name in sorted(first.keys() | second.keys()):
        sides = [side.get(name, "absent") for side in (first, second)]
        same = sides[0] == sides[1]
        print(f"{'same' if same else 'DIFFERENT':9}  {' '.join(dict.fromkeys(side[:16] for side in sides)):33}  {name}")
        if not same:
            different.append(name)
    return different


def run_snakemake(folder: Path, cores: int, *arguments: str, **settings: str) -> None:
    """Run the pipeline of a clone with this environment's programs; its failure ends this program."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = ["snakemake", "--cores", str(cores), "--quiet", "all", *arguments]
    run = subprocess.run(command, cwd=folder, env=os.environ | settings | {"PATH": path}, check=False)
    if run.returncode:
        sys.exit(f"error: snakemake failed in {folder}")


def shorten_benchmark(config: Path) -> None:
    """Set the benchmark of a configuration to SHORT_BENCHMARK."""
    content = yaml.safe_load(config.read_text(encoding="utf-8"))
    content["benchmark"] = content.get("benchmark", {}) | SHORT_BENCHMARK
    config.write_text(yaml.safe_dump(content), encoding="utf-8")


def reproduce(place: Path) -> int:
    """Clone the committed project twice, run both in different surroundings and compare; return the exit status."""
    made = []
    for name, cores, settings in SURROUNDINGS:
        clone = place / name
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        print(f"{clone}: {cores} cores, {settings}", flush=True)
        shorten_benchmark(clone / "config.yaml")
        run_snakemake(clone, cores, **settings)
        made.append(digests(clone / "results"))
    different = compare(*made)
    lock = hashlib.sha256((ROOT / "envs" / "locks" / "run.txt").read_bytes()).hexdigest()
    print(f"lock {lock[:16]}: {len(made[0])} files, {len(different)} different")
    return 1 if different else 0


def golden_files(results: Path, models: list[str]) -> dict[str, str]:
    """Return the sha256 of every ONNX file that the committed list is about, by its path."""
    return {
        path.relative_to(results).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for model in sorted(models)
        for variant in GOLDEN_VARIANTS
        for path in sorted((results / model / "onnx" / variant).glob("*.onnx*"))
    }


def make_golden(place: Path) -> dict[str, Any]:
    """Make the default configuration's ONNX files in a clone of the working tree's rules; return their list."""
    import yaml

    models = list(yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))["models"])
    targets = [f"results/{model}/onnx/{variant}.json" for model in models for variant in GOLDEN_VARIANTS]
    for name in ("config.yaml", "examples"):
        (place / name).symlink_to(ROOT / name)
    run_snakemake(place, 2, "--snakefile", str(ROOT / "Snakefile"), "--", *targets)
    from importlib.metadata import version

    return {
        "versions": {name: version(name) for name in GOLDEN_LIBRARIES},
        "sha256": golden_files(place / "results", models),
    }


def golden_problem(found: dict[str, Any], recorded: dict[str, Any]) -> str | None:
    """Return what changed since the list was recorded, why it may have, and what to do; None where nothing did."""
    names = sorted(found["sha256"].keys() | recorded["sha256"].keys())
    changed = [name for name in names if found["sha256"].get(name) != recorded["sha256"].get(name)]
    if not changed:
        return None
    bumped = [
        f"{name} {recorded['versions'].get(name)} → {version}"
        for name, version in found["versions"].items()
        if version != recorded["versions"].get(name)
    ]
    cause = (
        f"these versions changed: {', '.join(bumped)}"
        if bumped
        else "the versions are the same, so a recipe or the CPU changed"
    )
    return (
        f"other bytes than recorded in tests/golden.json: {', '.join(changed)}. Probable cause: {cause}. If parity "
        "still holds and the change is meant, run `make golden` and commit the file"
    )


def main() -> int:
    """Parse the command line and compare; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("reproduce", help="run two clones in different surroundings and compare their results")
    commands.add_parser("golden", help="make the default models' ONNX files and rewrite tests/golden.json")
    pair = commands.add_parser("compare", help="compare two results folders")
    pair.add_argument("first", type=Path)
    pair.add_argument("second", type=Path)
    args = parser.parse_args()
    if args.command == "compare":
        return 1 if compare(digests(args.first), digests(args.second)) else 0
    with tempfile.TemporaryDirectory(prefix="reproduce-") as place:
        if args.command == "reproduce":
            return reproduce(Path(place))
        GOLDEN.write_text(json.dumps(make_golden(Path(place)), indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
