"""The schemas of the pipeline's files are those of the types that its code is checked with."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from fitting import misfits, misfits_of
from records import (
    make_benchmark,
    make_case,
    make_manifest,
    make_parity,
    make_quantization,
    make_reference,
    make_release_record,
    make_source,
    make_step,
    make_variant,
    make_verification,
    make_writing,
)
from synthetic_results import write_results
from write_schemas import FILES

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
#: A process of its own, because it makes the types in another way, see ``read_types``.
MAKE = """
import json
from write_schemas import make_documents
print(json.dumps({path.as_posix(): text for path, text in make_documents().items()}))
"""


@pytest.fixture(scope="module")
def made() -> dict[str, str]:
    run = subprocess.run(
        [sys.executable, "-c", MAKE], cwd=ROOT / "tools", capture_output=True, text=True, check=False, timeout=120
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def test_the_committed_documents_are_what_make_schemas_writes(made):
    committed = {path.relative_to(DOCS).as_posix(): path.read_text() for path in (DOCS / "schemas").iterdir()}
    committed["records.md"] = (DOCS / "records.md").read_text()
    assert committed == made


def test_every_schema_is_one_and_describes_every_field(made):
    for name, text in made.items():
        if not name.endswith(".json"):
            continue
        schema = json.loads(text)
        Draft202012Validator.check_schema(schema)
        for kind, part in {name: schema, **schema.get("$defs", {})}.items():
            if "properties" in part and kind != "TracedOutputs":  # whose field is named as nothing is in Python
                assert "description" in part, (name, kind)
                assert [key for key, field in part["properties"].items() if "description" not in field] == []


def test_every_top_level_object_refuses_further_keys(made):
    for name, text in made.items():
        if name.endswith(".json") and "properties" in json.loads(text):
            assert json.loads(text)["additionalProperties"] is False, name


def write(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


SOURCE = make_source()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"total_bytes": "2"}, "$.total_bytes"),
        ({"kind": "ftp"}, "$.kind"),
        ({"files": {"config.json": {"size": 2}}}, "sha256"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_a_misfit_is_told(tmp_path, change, told):
    write(tmp_path / "m/source.json", SOURCE)
    assert misfits(tmp_path) == []
    write(tmp_path / "m/source.json", SOURCE | change)
    (found,) = misfits(tmp_path)
    assert told in found


def test_a_file_without_a_schema_is_told(tmp_path):
    write(tmp_path / "m/source.json", SOURCE)
    for own in ("source/config.json", "onnx/fp32/tokenizer.json", "onnx/fp32/1_Pooling/config.json"):
        write(tmp_path / "m" / own, {})
    write(tmp_path / "m/release/tokenizer.json", {})
    write(tmp_path / "m/release/export.json", {})
    assert misfits(tmp_path) == []
    write(tmp_path / "m/release/other.json", {})
    write(tmp_path / "m/other.json", {})
    assert misfits(tmp_path) == ["m/other.json: has no schema", "m/release/other.json: has no schema"]


@pytest.mark.parametrize(
    ("name", "record"),
    [
        ("source.json", make_source()),
        ("reference.json", make_reference()),
        ("onnx/fp32.json", make_variant()),
        ("onnx/int8.json", make_variant("int8", settings=make_quantization())),
        ("parity/fp32.json", make_parity()),
        ("benchmark/int8.json", make_benchmark("int8", [make_case(1, 16, 2.0, 4.0)], [make_case(1, 16, 4.0)])),
        ("benchmark/fp32.json", make_benchmark(generation=make_writing([make_step("first_token", 1, 32, 2.0)]))),
        ("release.json", make_release_record()),
        ("release/manifest.json", make_manifest()),
        ("verified.json", make_verification()),
    ],
)
def test_the_records_of_tests_are_what_the_pipeline_writes(tmp_path, name, record):
    write(tmp_path / "m" / name, record)
    assert misfits_of(tmp_path / "m" / name, tmp_path / "m") == []


def test_the_results_that_tests_make_up_are_what_the_pipeline_writes(tmp_path):
    results, _ = write_results(tmp_path)
    assert misfits(results) == []


def test_every_record_that_is_read_or_written_is_listed():
    """Each type that is named after a file is in the table, so that none stays without a schema."""
    listed = {file.record for file in FILES}
    for module in (ROOT / "workflow/scripts/onnxproof/records").glob("*.py"):
        for name in re.findall(r"^class (\w+Record)\b", module.read_text(), flags=re.MULTILINE):
            assert f"{module.stem}.{name}" in listed
