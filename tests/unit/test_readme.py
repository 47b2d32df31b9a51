"""What the README quotes is what was measured, its diagram is that of the rules, and links lead somewhere."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = sorted((ROOT / "docs").glob("*.md"))
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "config" / "README.md", *PAGES]


def tables(text: str) -> list[list[list[str]]]:
    """Return a document's Markdown tables: rows of cells, the header first."""
    blocks = re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE)
    rows = [[[cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines()] for block in blocks]
    return [[table[0], *table[2:]] for table in rows]


def test_the_figures_are_those_that_compare_quantizers_wrote():
    (header, *rows), *_ = tables((ROOT / "docs" / "accuracy.md").read_text(encoding="utf-8"))
    measured = {row[0]: dict(zip(header, row, strict=True)) for row in rows}
    (quoted_header, *quoted), *_ = tables(README)
    assert {"fp32", "**optimized**", "**int8**", "**int8-invariant**"} <= {row[0] for row in quoted}
    for row in quoted:
        for name, value in zip(quoted_header, row, strict=True):
            assert value == measured[row[0]][name], (row[0], name)


@pytest.mark.slow
def test_the_diagram_is_that_of_the_rules(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    from draw_rules import as_mermaid, rule_graph

    assert as_mermaid(rule_graph()) in README


def anchors(document: Path) -> set[str]:
    """Return the anchors that GitHub gives a document's headings."""
    headings = re.findall(r"^#+ (.*)", document.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: str(document.relative_to(ROOT)))
def test_links_lead_to_files_and_headings_of_the_project(document):
    links = re.findall(r"\]\(([^)\s]+)\)", document.read_text(encoding="utf-8"))
    for link in links:
        if not link.startswith("http"):
            path, _, anchor = link.partition("#")
            target = document.parent / path if path else document
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link


def test_the_index_lists_every_page_once():
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    listed = re.findall(r"^- \[.*?\]\((.*?\.md)\)", index, flags=re.MULTILINE)
    assert sorted(listed) == [page.name for page in PAGES if page.name != "index.md"]
