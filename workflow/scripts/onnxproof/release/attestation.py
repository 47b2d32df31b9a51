"""What is said of a release in formats that other tools read: an in-toto statement and a CycloneDX bill of materials.

Both follow from the files of the release alone, so the same release gives the same bytes.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from onnxproof.files import Files
from onnxproof.records.release import GateLimit, Quality, ReleaseManifest
from onnxproof.records.source import Origin
from onnxproof.release.card import read_metadata
from onnxproof.release.signature import STATEMENT_TYPE
from onnxproof.vocabulary import METRICS

#: What the statement asserts: the result of tests, see
#: https://github.com/in-toto/attestation/blob/main/spec/predicates/test-result.md
PREDICATE_TYPE = "https://in-toto.io/attestation/test-result/v0.1"
SPEC_VERSION = "1.6"
MANIFEST = "manifest.json"


# The statement


def make_statement(manifest: ReleaseManifest, subjects: Mapping[str, str]) -> dict[str, Any]:
    """Return an in-toto statement, not signed: these files passed these gates.

    Args:
        manifest: that of the release. A release holds only what passed.
        subjects: the hex sha256 of each file but the statement and the signature.
    """
    passed = [
        f"{variant}: {words}"
        for variant, facts in manifest["variants"].items()
        for words in [
            *map(describe_limit, facts["gate"]["limits"]),
            *([describe_quality(facts["evaluation"])] if "evaluation" in facts else []),
        ]
    ]
    return {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": name, "digest": {"sha256": digest}} for name, digest in sorted(subjects.items())],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "result": "PASSED",
            "configuration": [
                {
                    "name": MANIFEST,
                    "digest": {"sha256": subjects[MANIFEST]},
                    "mediaType": "application/json",
                    "annotations": {
                        "model": manifest["model"],
                        "task": manifest["task"],
                        "source": describe_source(manifest["source"]),
                        "inputs": manifest["reference"]["inputs"]["sha256"],
                    },
                }
            ],
            "passedTests": passed,
            "warnedTests": [],
            "failedTests": [],
        },
    }


def describe_limit(limit: GateLimit) -> str:
    """Return what a gate judged, such as ``cosine_min 0.995733 >= 0.97``."""
    sign = ">=" if limit["at_least"] else "<="
    return f"{limit['metric']} {limit['measured']:.6g} {sign} {limit['allowed']:.6g}"


def describe_quality(quality: Quality) -> str:
    """Return what a gate judged on labelled data, with the 95 % interval of the difference to the original."""
    low, high = quality["interval"]
    return (
        f"{quality['metric']} {quality['value']:.6g}, the original's {quality['original']:.6g}, "
        f"difference between {low:.6g} and {high:.6g} >= {-quality['allowed']:.6g}"
    )


def describe_source(source: Origin) -> str:
    """Return where a model came from: a package URL, or the name of its folder."""
    url = package_url(source)
    return url or f"folder {source.get('path')}"


# The bill of materials


def make_bom(manifest: ReleaseManifest, files: Files, folder: Path) -> dict[str, Any]:
    """Return a CycloneDX bill of materials of a release: the model, its ONNX files, its origin, and what made it.

    Args:
        manifest: that of the release.
        files: those of the release.
        folder: the release, whose card names the licence.
    """
    model = manifest["model"]
    licence = read_metadata(folder / "README.md").get("license")
    licences = {"licenses": [{"license": {"name": licence}}]} if isinstance(licence, str) else {}
    return {
        "bomFormat": "CycloneDX",
        "specVersion": SPEC_VERSION,
        "version": 1,
        "metadata": {
            "component": {
                "type": "machine-learning-model",
                "bom-ref": model,
                "name": model,
                "description": f"ONNX files of {model}, compared with PyTorch",
                **licences,
                "pedigree": {"ancestors": [ancestor(manifest["source"], model)]},
                "modelCard": {"modelParameters": {"task": manifest["task"]}},
            }
        },
        "components": [*onnx_files(manifest, files), *further_files(manifest, files), *libraries(manifest)],
        "dependencies": [
            {"ref": model, "dependsOn": [facts["file"] for facts in manifest["variants"].values()]},
        ],
    }


def ancestor(source: Origin, model: str) -> dict[str, Any]:
    """Return the component that a model was made from."""
    url = package_url(source)
    named = {"name": str(source.get("repo") or source.get("package") or source.get("path") or model)}
    version = source.get("revision") or source.get("package_version")
    return {
        "type": "machine-learning-model",
        **named,
        **({"version": version} if version else {}),
        **({"purl": url} if url else {}),
    }


def package_url(source: Origin) -> str | None:
    """Return the package URL of a model of the Hub or of a distribution; None of a folder."""
    if source["kind"] == "hub":
        return f"pkg:huggingface/{source['repo']}@{source['revision']}"
    if source["kind"] == "package":
        return f"pkg:pypi/{normalized(str(source['package']))}@{source['package_version']}"
    return None


def normalized(distribution: str) -> str:
    """Return the name of a distribution as package URLs have it."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def onnx_files(manifest: ReleaseManifest, files: Files) -> Iterator[dict[str, Any]]:
    """Yield the component of each variant: its checksum, how it was made, and what the gate measured."""
    for variant, facts in manifest["variants"].items():
        yield {
            "type": "machine-learning-model",
            "bom-ref": facts["file"],
            "name": facts["file"],
            "description": f"the variant {variant}",
            "hashes": [{"alg": "SHA-256", "content": files[facts["file"]]["sha256"]}],
            "modelCard": {
                "modelParameters": {"task": manifest["task"]},
                "quantitativeAnalysis": {
                    "performanceMetrics": [
                        {
                            "type": limit["metric"],
                            "value": f"{limit['measured']:.6g}",
                            "slice": METRICS[limit["metric"]].meaning,
                        }
                        for limit in facts["gate"]["limits"]
                    ]
                },
            },
        }


def further_files(manifest: ReleaseManifest, files: Files) -> Iterator[dict[str, Any]]:
    """Yield the component of each other file beside the ONNX files: weights, further graphs, copies."""
    named = {facts["file"] for facts in manifest["variants"].values()}
    for name, entry in files.items():
        if name.startswith("onnx/") and name not in named:
            hashes = [{"alg": "SHA-256", "content": entry["sha256"]}]
            yield {"type": "file", "bom-ref": name, "name": name, "hashes": hashes}


def libraries(manifest: ReleaseManifest) -> Iterator[dict[str, Any]]:
    """Yield the component of each library that took part in making the files, or answered for the original."""
    versions = dict(manifest["reference"]["versions"])
    for facts in manifest["variants"].values():
        versions |= facts["versions"]
    for name, version in sorted(versions.items()):
        if name != "python":
            url = f"pkg:pypi/{normalized(name)}@{version.partition('+')[0]}"
            yield {
                "type": "library",
                "bom-ref": url,
                "name": name,
                "version": version,
                "scope": "excluded",
                "purl": url,
            }
