"""Labelled data through the workflow: answered, scored, judged, shown, released; and a gate that fails."""

import csv
import json
import subprocess
import sys
import wave

import numpy as np
import pytest

from kinds import KINDS
from onnxproof.config.checks import check_config
from onnxproof.config.resolve import resolve_models
from project import make_project

WORDS = ("good", "bad", "love it", "broke", "fine", "awful", "works", "buy again")


def label_stars(project, count, **settings):
    """Name labelled data for the classifier: texts with a label of its own, by name or by number."""
    names = list(json.loads((project.folder / "models/stars/config.json").read_text())["id2label"].values())
    with (project.folder / "labelled.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["review", "stars"])
        for number in range(count):
            text = " ".join(WORDS[(number * step) % len(WORDS)] for step in (1, 3, 5))
            place = number % len(names)
            table.writerow([text, names[place] if number % 2 else place])
    evaluation = {"data": "labelled.csv", "input": "review", "label": "stars", **settings}
    project.config["models"]["stars.v1"]["evaluation"] = evaluation
    project.configure(project.config)


@pytest.mark.slow
def test_labelled_data_are_evaluated_and_judged(copy_of_finished):
    project = copy_of_finished
    label_stars(project, 40, not_worse_by=0.9)
    planned = project.planned()
    assert planned["record_evaluation"] == 1
    assert planned["evaluate"] == planned["score_evaluation"] == planned["gate_evaluation"] == 3
    assert not {"export", "quantize", "measure_parity", "benchmark"} & planned.keys()
    run = project.snakemake()
    assert run.returncode == 0, run.stdout
    assert project.planned() == {}
    folder = project.folder / "results/stars.v1"
    record = json.loads((folder / "evaluation/fp32.json").read_text())
    assert record["metric"] == "accuracy"
    assert record["data"]["inputs"] == 40
    assert record["value"] == record["original"]
    assert record["changed"] == 0.0
    assert sum(row["inputs"] for row in record["classes"]) == 40
    rows = [json.loads(line) for line in (folder / "evaluation/int8.jsonl").read_text().splitlines()]
    assert [row["row"] for row in rows] == list(range(1, 41))
    right = sum(row["original_score"] for row in rows) / 40
    assert right == pytest.approx(record["original"])
    manifest = json.loads((folder / "release/manifest.json").read_text())
    assert manifest["variants"]["int8"]["evaluation"]["allowed"] == 0.9
    check_config(manifest["reproduce"]["config"], project.folder)
    again, settings = (resolve_models(given)["stars.v1"] for given in (manifest["reproduce"]["config"], project.config))
    assert again["evaluation"] == settings["evaluation"]
    card = (folder / "release/README.md").read_text()
    assert "model-index:" in card
    assert "## On labelled data" in card
    script = folder / "release/verify_release.py"
    command = [sys.executable, script, "--threads", "1", "--labelled", project.folder / "labelled.csv"]
    for arguments in ([], ["--max-inputs", "20"]):
        verified = subprocess.run([*command, *arguments], text=True, capture_output=True, timeout=300, check=False)
        assert verified.returncode == 0, verified.stdout + verified.stderr
        assert verified.stdout.count(": the recorded figure holds") == len(manifest["variants"]) == 2

    page = (project.folder / "results/report.html").read_text()
    assert "On labelled data" in page

    # Another limit judges again, and nothing else; one that nothing can be proven to keep withdraws the release.
    label_stars(project, 40, not_worse_by=0.0)
    run = project.snakemake()
    assert run.returncode != 0
    assert "stars.v1 fp32 is not proven to be as good as the original: accuracy" in run.stdout
    assert "it may be worse by up to" in run.stdout
    assert "Traceback" not in run.stdout
    assert not (folder / "release").exists()
    assert not (folder / "evaluation/fp32.ok").exists()
    assert (folder / "evaluation/fp32.json").exists()


@pytest.mark.slow
def test_the_search_has_a_share_of_the_labelled_data_and_the_gate_has_the_rest(copy_of_finished):
    project = copy_of_finished
    label_stars(project, 40, not_worse_by=0.9, search_share=0.4)
    planned = project.planned()
    assert planned["keep_aside"] == planned["quantize"] == planned["record_evaluation"] == 1
    run = project.snakemake()
    assert run.returncode == 0, run.stdout
    assert project.planned() == {}
    folder = project.folder / "results/stars.v1"
    aside = json.loads((folder / "evaluation/kept_aside.json").read_text())
    rows = [json.loads(line)["row"] for line in (folder / "evaluation/int8.jsonl").read_text().splitlines()]
    assert sorted(rows + aside["rows"]) == list(range(1, 41))
    assert json.loads((folder / "evaluation/answers/pytorch.json").read_text())["rows_kept_aside"] == aside["rows"]
    record = json.loads((folder / "evaluation/int8.json").read_text())
    assert record["data"]["inputs"] == len(rows)
    assert record["data"]["kept_aside"] == {"share": 0.4, "inputs": len(aside["rows"])}
    settings = json.loads((folder / "onnx/int8.json").read_text())["settings"]
    assert settings["calibration"]["labelled"]["rows"] == aside["rows"]
    assert settings["search"]["labelled"]["metric"] == "accuracy"
    assert settings["search"]["rungs"][0]["metrics"]["labelled_accuracy"] is not None
    card = (folder / "release/README.md").read_text()
    assert f"without the {len(aside['rows'])} by which recipes were chosen" in card
    assert "were kept aside for the choice of the recipe: accuracy on them is" in card
    assert (
        f"without {len(aside['rows'])} that the search for a recipe had" in (folder / "evaluation/int8.ok").read_text()
    )


def test_a_wrong_field_is_told_before_any_job(copy_of_finished):
    project = copy_of_finished
    label_stars(project, 2, label="rating")
    run = project.snakemake("-n")
    assert run.returncode != 0
    assert "models.stars.v1.evaluation.label is 'rating', but the first row of" in run.stdout
    assert "Traceback" not in run.stdout


@pytest.mark.slow
def test_speech_is_heard_as_by_the_pipeline_and_scored_by_the_words(tmp_path):
    """A listener with random weights writes nonsense, but each variant the same that transformers' pipeline writes."""
    import jiwer
    from transformers import pipeline

    project = make_project(tmp_path)
    model = project.folder / "models/listener"
    KINDS["speech"](model)
    rng = np.random.default_rng(0)
    rows, sounds = [], []
    for number in range(6):
        sound = rng.normal(0, 0.1, 16_000) + np.sin(np.arange(16_000) * (0.02 + number / 30))
        heard = (sound / np.abs(sound).max() * 32_767).astype(np.int16)
        sounds.append(heard / np.float32(32_768))
        with wave.open(str(project.folder / f"{number}.wav"), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(16_000)
            file.writeframes(heard.tobytes())
        rows.append({"audio": f"{number}.wav", "text": " ".join(WORDS[: number + 1])})
    (project.folder / "heard.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    evaluation = {"data": "heard.jsonl", "not_worse_by": 0.5, "new_tokens": 8}
    listener = {"source": {"path": "models/listener"}, "variants": ["fp32"], "evaluation": evaluation}
    project.configure(project.config | {"models": {"listener": listener}})
    run = project.snakemake("results/listener/evaluation/fp32.ok")
    assert run.returncode == 0, run.stdout
    folder = project.folder / "results/listener/evaluation"
    record = json.loads((folder / "fp32.json").read_text())
    assert (record["metric"], record["data"]["inputs"], record["changed"]) == ("word_error_rate", 6, 0.0)
    hear = pipeline("automatic-speech-recognition", model=str(model))
    expected = [
        hear({"raw": sound, "sampling_rate": 16_000}, generate_kwargs={"max_new_tokens": 8})["text"] for sound in sounds
    ]
    original = [json.loads(line) for line in (folder / "answers/pytorch.jsonl").read_text().splitlines()]
    assert [row["answer"] for row in original] == expected
    assert record["original"] == record["value"] == pytest.approx(jiwer.wer([row["text"] for row in rows], expected))
