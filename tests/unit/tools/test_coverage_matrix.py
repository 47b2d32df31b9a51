"""The table of further variants in the document about architectures."""

import json
from dataclasses import asdict

from coverage_matrix import INT8_THRESHOLDS, Row, has_variants, main, run_variant, write_table
from messages import raises
from onnxproof.cli import UserError
from records import make_parity


def row(name, reason="", **others):
    return Row("saved5", name, "fill-mask", int8="top1_agreement 1.0000", reason=reason, others=others)


def test_further_variants_are_counted_by_what_became_of_them(tmp_path):
    rows = [
        row("bert fill-mask", fp16="", w8=""),
        row("roberta fill-mask", fp16="cosine_min: measured not finite, allowed >= 0.9", w8=""),
        row("deberta fill-mask", fp16="cosine_min: measured 0.5, allowed >= 0.9", w8="a step crashed: KeyError: 'x'"),
    ]
    write_table(rows, tmp_path / "coverage.md")
    text = (tmp_path / "coverage.md").read_text()
    assert "| fp16 | 3 | 1 | 1 | 1 | 0 |" in text
    assert "| w8 | 3 | 2 | 0 | 0 | 1 |" in text
    assert "| deberta fill-mask | saved by 5 | w8 | a step crashed: KeyError: 'x' |" in text
    assert "| bert fill-mask | saved by 5 | fp16" not in text


def test_a_miss_that_was_looked_into_has_its_reason(tmp_path):
    missed = "max_probability_diff: measured 0.5, allowed <= 0.01"
    write_table([row("levit image-classification", fp16=missed, w8=missed)], tmp_path / "coverage.md")
    text = (tmp_path / "coverage.md").read_text()
    assert f"| levit image-classification | saved by 5 | fp16 | {missed} (its logits reach 4,605: " in text
    assert f"| levit image-classification | saved by 5 | w8 | {missed} |" in text


def test_without_further_variants_nothing_is_said_of_them(tmp_path):
    write_table([row("bert fill-mask")], tmp_path / "coverage.md")
    assert "Further variants" not in (tmp_path / "coverage.md").read_text()


def test_the_section_is_rewritten_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page, records = tmp_path / "coverage.md", tmp_path / "rows.jsonl"
    rows = [row("bert fill-mask", w8=""), row("roberta fill-mask", w8="cosine_min: measured 0.5, allowed >= 0.9")]
    records.write_text("".join(json.dumps(asdict(each)) + "\n" for each in rows))
    write_table([row("bert fill-mask")], page)
    without = page.read_text()
    for again in ([], ["--again"]):  # it is put in, then replaced; nothing runs, so --again changes nothing
        assert main(["--column", "saved5", "--records", str(records), "--further", str(page), *again]) == 0
        write_table(rows, tmp_path / "whole.md")
        section = (tmp_path / "whole.md").read_text().partition("## Further variants")[2].partition("## Types")[0]
        assert "| w8 | 2 | 1 | 1 | 0 | 0 |" in section
        assert page.read_text() == without.replace("## Types", f"## Further variants{section}## Types")
    with raises(UserError):
        main(["--records", str(records), "--further", "none.md"])
    records.write_text("")
    page.rename("coverage.md")
    with raises(UserError):
        main(["--records", str(records), "--further", "coverage.md"])


def test_what_the_gate_judges_is_searched_for_with_the_default_targets(tmp_path, monkeypatch):
    parity = make_parity("fp16", task_metrics={"max_probability_diff": 0.02})
    monkeypatch.setattr("chain.quantize_variant", lambda *asked: seen.append(asked[3]) or ({}, parity))
    seen: list[dict[str, float]] = []
    missed = run_variant("bert fill-mask", tmp_path, "fp16")
    assert missed == "max_probability_diff: measured 0.02, allowed <= 0.01"
    assert run_variant("bert fill-mask", tmp_path, "w8") == "", "random weights are not asked for that"
    assert seen[0]["max_probability_diff"] < 0.01
    assert seen[1] == INT8_THRESHOLDS


def test_rows_that_are_run_again_are_not_copied_from_finished_ones(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "coverage_matrix.run_rows", lambda *asked: seen.append(asked[2]) or [row("esm feature-extraction")]
    )
    records, seen = tmp_path / "rows.jsonl", []
    asked = ["esm feature-extraction", "--column", "saved5", "--records", str(records)]
    main(asked)
    main([*asked, "--again"])
    assert seen == [records, None]


def test_a_row_is_run_again_for_a_variant_that_it_lacks():
    assert has_variants(row("bert fill-mask", fp16=""), ["fp16"])
    assert not has_variants(row("bert fill-mask", fp16=""), ["fp16", "w8"])
    assert has_variants(row("bert fill-mask", reason="int8: batch_cosine_min"), ["fp16"]), "nothing is made of it"
