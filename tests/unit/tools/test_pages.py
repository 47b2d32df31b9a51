"""The pages tell what was measured: who lost, too."""

import csv
import xml.etree.ElementTree as ET

import pytest

from compare_runtimes import merge
from comparison import pages
from onnxproof.files import write_json


def contender(speedups, cosine=1.0, ours=False, **facts):
    cases = {
        label: {
            "p50_ms": 10 / speedup,
            "items_per_s": 100 * speedup,
            "speedup": speedup,
            "interval": [speedup * 0.9, speedup * 1.1],
            "giga_operations_per_s": 30.0,
            "share_of_peak": 0.5,
            "samples_ms": [[10 / speedup], [10 / speedup]],
        }
        for label, speedup in zip(("1x16", "1x128", "8x128"), speedups, strict=False)
    }
    quality = {"cosine_min": cosine, "cosine_mean": cosine}
    return {"ours": ours, "arithmetic": "float", "cases": cases, "size_mb": 50.0, "quality": quality} | facts


@pytest.fixture
def record():
    return {
        "model": "tiny",
        "random_weights": False,
        "threads": 2,
        "cpu": {"model": "A CPU", "flags": ["avx2"]},
        "peak_giga_operations_per_s": {"float": 60.0, "integer": 66.0},
        "items_judged": 24,
        "contenders": {
            "onnxruntime fp32": contender((1.0, 1.0, 1.0)),
            "PyTorch eager": contender((0.5, 0.6, 0.7)),
            "int8": contender((1.2, 1.1, 1.0), cosine=0.998, ours=True),
            "int8, no arena": contender((1.8, 1.1, 1.0), cosine=0.998, ours=True, other_settings_of="int8"),
            "rival": contender((1.5, 1.5, 2.0), cosine=0.98),
            "broken rival": contender((9.0, 9.0, 9.0), cosine=0.5),
            "absent": {"ours": False, "arithmetic": "float", "cases": {}, "size_mb": 1.0, "failed": "no such library"},
        },
        "versions": {"onnxruntime": "1"},
    }


def test_a_faster_rival_is_recommended_and_ours_named_behind_it(record):
    sentences = pages.recommendations(record)
    assert len(sentences) == 5
    lossy = next(text for text in sentences if text.startswith("latency (1x16, 1x128), as good as the gate asks"))
    assert "**rival**, 1.50x" in lossy
    assert "our best, int8, 1.15x" in lossy
    lossless = next(text for text in sentences if text.startswith("latency (1x16, 1x128), without a loss"))
    assert "**onnxruntime fp32**" in lossless


def test_nothing_is_recommended_for_what_was_not_timed(record):
    for facts in record["contenders"].values():
        facts["cases"].pop("8x128", None)
    sentences = pages.recommendations(record)
    assert any(text.startswith("latency") for text in sentences)
    assert not any(text.startswith("throughput") for text in sentences)


def test_other_settings_are_told_where_they_matter(record):
    told = pages.recommendations(record)[-1]
    assert told == "int8, no arena, beside onnxruntime's default settings: 1.50x at 1x16 (1.50–1.50)."
    record["contenders"]["int8, no arena"]["cases"] = record["contenders"]["int8"]["cases"]
    assert "keep the default" in pages.recommendations(record)[-1]
    assert not any(text.startswith("latency") and "no arena" in text for text in pages.recommendations(record))


def test_a_contender_below_the_gate_is_never_recommended(record):
    assert not any("broken rival" in text for text in pages.recommendations(record))


def test_the_page_and_the_files(record, tmp_path):
    write_json(tmp_path / "out" / "tiny.json", record)
    pages.write_pages(tmp_path / "out", tmp_path / "docs" / "runtimes.md")
    page = (tmp_path / "docs" / "runtimes.md").read_text()
    assert "| **int8** | 1.20 (1.08–1.32), 8.3 ms |" in page
    assert "60 billion operations a second in float, 66 in integers (1.10x)" in page
    assert "absent did not run: no such library" in page
    assert ET.parse(tmp_path / "docs" / "runtimes-tiny.svg").getroot().tag.endswith("svg")
    with open(tmp_path / "out" / "samples.csv") as stream:
        samples = list(csv.DictReader(stream))
    assert len(samples) == 6 * 3 * 2
    with open(tmp_path / "out" / "summary.csv") as stream:
        summary = list(csv.DictReader(stream))
    assert {row["contender"] for row in summary} == set(record["contenders"]) - {"absent"}
    assert summary[0]["speedup_low"] == "0.9"


def test_a_case_timed_once_has_no_interval(record):
    case = record["contenders"]["PyTorch eager"]["cases"]["1x16"] | {"samples_ms": [[20.0]]}
    assert pages.describe_case(case) == "0.50, 20.0 ms"


def test_cases_of_an_earlier_run_are_kept(record):
    later = record | {
        "peak_giga_operations_per_s": {"float": 50.0, "integer": 70.0},
        "contenders": {
            "int8": {"ours": True, "arithmetic": "integer", "size_mb": 50.0, "cases": {"1x16": {}, "traffic": {}}}
        },
    }
    merged = merge(record, later)
    assert list(merged["contenders"]["int8"]["cases"]) == ["1x16", "1x128", "8x128", "traffic"]
    assert merged["contenders"]["int8"]["cases"]["1x16"] == {}
    assert merged["contenders"]["int8"]["quality"]["cosine_min"] == 0.998
    assert merged["contenders"]["rival"] == record["contenders"]["rival"]
    assert merged["peak_giga_operations_per_s"] == {"float": 60.0, "integer": 70.0}
