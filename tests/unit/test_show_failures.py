"""What is told of failed jobs at the end of a run, from a folder with known results and logs."""

import csv
import json

import show_failures
import show_summary
import synthetic_results as synthetic

#: What the test of four failures reads, from the list of jobs on.
TOLD = """\
4 jobs of 4 of 5 models failed:
FAILED star-rating-tiny gate_parity int8: top1_agreement: measured 0.89
  log: results/logs/gate_parity/star-rating-tiny.int8.log
FAILED gone download: gone: no such repository
  log: results/logs/download/gone.log
FAILED killed download: it ended without a word; it may have been killed
  log: results/logs/download/killed.log
FAILED elsewhere download: it left no log on this machine
  log: results/logs/download/elsewhere.log
All failures: results/logs/summary/failures.csv
The next run repeats these jobs and what follows from them, and nothing else.
"""


def failed(rule: str, model: str, variant: str = "") -> dict[str, str]:
    name = f"{model}.{variant}" if variant else model
    return {"model": model, "rule": rule, "variant": variant, "log": f"results/logs/{rule}/{name}.log"}


def log(folder, name: str, text: str) -> None:
    path = folder / "results/logs" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def show(folder, monkeypatch, capsys, settings, jobs, *options: str) -> str:
    monkeypatch.chdir(folder)
    (folder / "run.json").write_text(json.dumps({"settings": settings, "failed": jobs, "released": []}))
    arguments = ["--results", "results", "--run", "run.json"]
    show_failures.main([*arguments, "--output-dir", "results/logs/summary", *options])
    return capsys.readouterr().out


def test_every_failure_is_told_with_its_reason_and_log(tmp_path, monkeypatch, capsys):
    results, settings = synthetic.write_results(tmp_path)
    settings["gone"] = {"variants": ["fp32", "int8"], "pytorch": False}
    settings["killed"] = settings["elsewhere"] = {"variants": ["fp32"], "pytorch": False}
    log(tmp_path, "download/gone.log", "downloading\nerror: gone: no such repository\n")
    log(tmp_path, "download/killed.log", "")
    log(tmp_path, "gate_parity/star-rating-tiny.int8.log", "error: top1_agreement: measured 0.89\n  two\n")
    jobs = [
        failed("gate_parity", "star-rating-tiny", "int8"),
        failed("download", "gone"),
        failed("download", "killed"),
        failed("download", "elsewhere"),
    ]
    out = show(tmp_path, monkeypatch, capsys, settings, jobs, "--partial")
    assert out[out.index("4 jobs of") :] == TOLD
    rows = list(csv.DictReader((results / "logs/summary/failures.csv").open()))
    assert [(row["model"], row["rule"], row["variant"]) for row in rows] == [
        ("star-rating-tiny", "gate_parity", "int8"),
        ("gone", "download", ""),
        ("killed", "download", ""),
        ("elsewhere", "download", ""),
    ]
    models = {row["model"] for row in csv.DictReader((results / "logs/summary/partial.csv").open())}
    assert models == {"all-MiniLM-L6-v2", "star-rating-tiny"}
    assert (results / "logs/summary/partial.html").is_file()
    assert not (results / "summary.csv").exists()


def test_many_failures_are_counted_not_listed(tmp_path, monkeypatch, capsys):
    settings = {f"m{number}": {"variants": ["fp32"], "pytorch": False} for number in range(100)}
    for name in settings:
        log(tmp_path, f"download/{name}.log", f"error: {name} is gone\n")
    jobs = [failed("download", name) for name in settings]
    out = show(tmp_path, monkeypatch, capsys, settings, jobs, "--partial")
    assert out.count("FAILED ") == show_failures.SHOWN
    assert "… and 70 more" in out
    assert len((tmp_path / "results/logs/summary/failures.csv").read_text().splitlines()) == 101
    assert not (tmp_path / "results/logs/summary/partial.csv").exists()


def test_the_terminal_shows_only_the_failed_of_many_models(tmp_path, monkeypatch, capsys):
    import summary

    monkeypatch.setattr(show_summary, "MOST_MODELS", 3)
    results = tmp_path / "results"
    settings = {f"m{number}": synthetic.write_classification_model(results, f"m{number}") for number in range(5)}
    synthetic.fail_int8(results, "m3")
    arguments = ["--results", str(results), "--settings", json.dumps(settings)]
    summary.main([*arguments, "--output-csv", str(results / "s.csv"), "--output-html", str(results / "s.html")])
    capsys.readouterr()
    show_summary.main(["--csv", str(results / "s.csv")])
    out = capsys.readouterr().out
    assert "1 of 5 models missed a gate. The table shows only them." in out
    assert out.index(" m3 ") < out.index("1 of 5")
    assert "m4" not in out
