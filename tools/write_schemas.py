"""Write docs/schemas/, a JSON Schema of each file that the pipeline writes, and docs/records.md, which lists them.

`make schemas` after a type in onnxproof/records/ was changed; a test holds what is committed against the types. The
docstrings of the types and of their fields become descriptions.
"""

import importlib
import json
import pkgutil
import re
import sys
import typing
from pathlib import Path
from typing import Any, NamedTuple

import typing_extensions
from pydantic import ConfigDict, TypeAdapter

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "workflow" / "scripts"))

SCHEMAS = Path("schemas")
PAGE = Path("records.md")
DIALECT = "https://json-schema.org/draft/2020-12/schema"


class File(NamedTuple):
    """A kind of file: its path below ``results/{model}/``, its type as module and name, and what it holds.

    The last is left out where the type's docstring says it.
    """

    path: str
    record: str
    about: str = ""

    @property
    def schema(self) -> Path:
        """The path of its schema in docs/: named after its type."""
        name = self.record.rpartition(".")[2].removesuffix("Record")
        return SCHEMAS / f"{re.sub('(?<!^)(?=[A-Z])', '-', name).lower()}.schema.json"


FILES = (
    File("source.json", "source.SourceRecord"),
    File("reference.json", "reference.ReferenceRecord"),
    File("reference/final.json", "reference.FinalRecord"),
    File(
        "reference/generated.json",
        "reference.Generated",
        "The tokens that PyTorch generates after some of the inputs, by the input's number.",
    ),
    File("reference/texts.json", "reference.RecordedTexts", "The texts that each input was made from."),
    File("onnx/{variant}.json", "variant.VariantRecord"),
    File("parity/{variant}.json", "parity.ParityRecord"),
    File(
        "parity/{provider}/{variant}.json",
        "parity.ParityRecord",
        "The same where another execution provider than that of the CPU computes the variant's answers.",
    ),
    File("fixed/{variant}/{shape}.json", "fixed.FixedRecord"),
    File("parity/browser.json", "browser.BrowserRecord"),
    File("evaluation/kept_aside.json", "evaluation.KeptAside"),
    File("evaluation/answers/pytorch.json", "evaluation.EvaluatedOriginal"),
    File("evaluation/answers/{variant}.json", "evaluation.EvaluatedVariant"),
    File("evaluation/{variant}.json", "evaluation.EvaluationRecord"),
    File("benchmark/{variant}.json", "benchmark.BenchmarkRecord"),
    File("benchmark/{machine}/{variant}.json", "benchmark.BenchmarkRecord"),
    File("release.json", "release.ReleaseRecord"),
    File("release/manifest.json", "release.ReleaseManifest"),
    File("release/golden.json", "release.GoldenRecord"),
    File("release/evaluation.json", "release.ReleasedQuality"),
    File("verified.json", "release.VerificationRecord"),
    File("published.json", "release.PublicationRecord"),
    File("audits/{audit}/audit.json", "audit.AuditRecord"),
)

HEADER = """# Files

The JSON files that the workflow writes below `results/{model}/`, each with its
[JSON Schema](https://json-schema.org/draft/2020-12). `make schemas` writes this page and the schemas from the types in
`workflow/scripts/onnxproof/records/`. Other JSON files there are copies of the model's own, such as `config.json`, or
have the form of a library, such as `release/export.json` of transformers.

| file | what it holds | schema |
| --- | --- | --- |
"""


def read_types() -> dict[str, Any]:
    """Return the types of the records by module and name, ready for pydantic.

    Before Python 3.12, pydantic takes a ``TypedDict`` of ``typing_extensions`` alone. What it looks for in it makes no
    difference elsewhere, so the pipeline does without that package, and the types are made with it here.
    """
    typing.TypedDict = typing_extensions.TypedDict
    package = importlib.import_module("onnxproof.records")
    names = [f"{package.__name__}.{module.name}" for module in pkgutil.iter_modules(package.__path__)]
    types = {}
    for module in map(importlib.import_module, ("onnxproof.files", *names)):
        for name, value in vars(module).items():
            types[f"{module.__name__.rpartition('.')[2]}.{name}"] = value
            if typing_extensions.is_typeddict(value):
                value.__pydantic_config__ = ConfigDict(extra="forbid", use_attribute_docstrings=True)
    return types


def schema_of(kind: Any, types: dict[str, Any]) -> dict[str, Any]:
    """Return the JSON Schema of a type."""
    schema = without_titles(TypeAdapter(kind).json_schema())
    named = {value.__name__: value for value in types.values() if typing_extensions.is_typeddict(value)}
    parts = [(kind, schema), *((named[name], part) for name, part in schema.get("$defs", {}).items())]
    for part, described in parts:
        for base in typing_extensions.get_original_bases(part) if typing_extensions.is_typeddict(part) else ():
            add_descriptions(base, described["properties"])
    return {"$schema": DIALECT} | schema


def add_descriptions(kind: Any, properties: dict[str, Any]) -> None:
    """Describe properties that a type has from another one, in place, as that one describes them."""
    if not typing_extensions.is_typeddict(kind):
        return
    for name, own in TypeAdapter(kind).json_schema()["properties"].items():
        if "description" in own:
            properties[name].setdefault("description", own["description"])
    for base in typing_extensions.get_original_bases(kind):
        add_descriptions(base, properties)


def without_titles(schema: Any) -> Any:
    """Return a schema without the titles that pydantic makes of the names of fields."""
    if isinstance(schema, list):
        return [without_titles(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    return {key: without_titles(part) for key, part in schema.items() if key != "title" or not isinstance(part, str)}


def make_documents() -> dict[Path, str]:
    """Return the texts of the page and the schemas, by their paths in docs/."""
    types = read_types()
    schemas = {file.schema: schema_of(types[file.record], types) for file in FILES}
    rows = [
        f"| `{file.path}` | {file.about or schemas[file.schema]['description'].splitlines()[0]} "
        f"| [{file.schema.name}]({file.schema.as_posix()}) |\n"
        for file in FILES
    ]
    texts = {path: json.dumps(schema, indent=2) + "\n" for path, schema in schemas.items()}
    return texts | {PAGE: HEADER + "".join(rows).replace("``", "`")}


def main() -> None:
    """Write the documents."""
    documents = make_documents()
    for schema in (ROOT / "docs" / SCHEMAS).glob("*.json"):
        schema.unlink()
    for path, text in documents.items():
        target = ROOT / "docs" / path
        target.parent.mkdir(exist_ok=True)
        target.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
