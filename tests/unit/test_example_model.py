"""The committed example model is what its report says, and its training script can be run again."""

import json
from pathlib import Path

import pytest

from messages import raises

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
MODEL = EXAMPLES / "star-rating-tiny"
HELD_OUT = EXAMPLES / "star-rating-heldout.jsonl"
STARS = ["1 star", "2 stars", "3 stars", "4 stars", "5 stars"]


@pytest.fixture
def training(monkeypatch: pytest.MonkeyPatch):
    """Return the training script as a module."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import train_star_rating

    return train_star_rating


@pytest.fixture(scope="module")
def held_out() -> list[dict]:
    return [json.loads(line) for line in HELD_OUT.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def probabilities(held_out: list[dict]):
    """Return what PyTorch computes for the held-out texts: (texts, 5)."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    model = AutoModelForSequenceClassification.from_pretrained(MODEL).eval()
    assert [model.config.id2label[label] for label in range(5)] == STARS
    parts = []
    with torch.inference_mode():
        for at in range(0, len(held_out), 50):
            texts = [entry["text"] for entry in held_out[at : at + 50]]
            inputs = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
            parts.append(model(**inputs).logits.softmax(dim=-1))
    return torch.cat(parts).double().numpy()


def test_held_out_reviews_are_many_and_balanced(held_out: list[dict]) -> None:
    assert len(held_out) >= 500
    assert len({entry["text"] for entry in held_out}) == len(held_out)
    assert all(set(entry) == {"text", "label"} for entry in held_out)
    counts = [sum(entry["label"] == label for entry in held_out) for label in range(5)]
    assert sum(counts) == len(held_out)
    assert max(counts) - min(counts) <= 1


def test_accuracy_is_the_recorded_one_and_far_above_chance(held_out: list[dict], probabilities) -> None:
    recorded = json.loads((MODEL / "training_report.json").read_text())["held_out"]
    labels = [entry["label"] for entry in held_out]
    right = probabilities.argmax(axis=1) == labels
    assert right.mean() == pytest.approx(recorded["accuracy"], abs=0.005)
    assert right.mean() > 0.8
    for label, name in enumerate(STARS):
        of_class = [correct for correct, true in zip(right, labels, strict=True) if true == label]
        assert sum(of_class) / len(of_class) == pytest.approx(recorded["accuracy_per_class"][name], abs=0.015)


def test_probabilities_are_varied_not_saturated(probabilities) -> None:
    surest = probabilities.max(axis=1)
    assert 0.02 < (surest < 0.6).mean() < 0.6
    assert (surest > 0.9).mean() > 0.1
    assert surest.max() < 0.9999


def test_folder_is_small_and_holds_only_what_a_model_repository_would(training) -> None:
    assert {path.name for path in MODEL.iterdir()} == training.MODEL_FILES | training.OLDER_FILES
    assert (MODEL / "model.safetensors").stat().st_size < 2_000_000


def test_model_card_states_the_recorded_accuracy() -> None:
    report = json.loads((MODEL / "training_report.json").read_text())
    assert f"**{report['held_out']['accuracy']:.1%}**" in (MODEL / "README.md").read_text(encoding="utf-8")


def test_held_out_reviews_share_no_text_and_no_pairing_with_the_training_reviews(
    training, held_out: list[dict]
) -> None:
    report = json.loads((MODEL / "training_report.json").read_text())
    from reviews import is_held_out

    trained, kept = training.make_reviews(
        training.parse_arguments([]).train_size, report["heldout_size"], report["seed"]
    )
    assert len(trained) == report["train_size"]
    assert [(review.text, review.label) for review in kept] == [(e["text"], e["label"]) for e in held_out]
    assert not {review.text.casefold() for review in trained} & {review.text.casefold() for review in kept}
    # "the screen" with "superb" is on one side only; "very", "not" and the verbs come between on both.
    pairings = {
        (subject, adjective)
        for subject in ("screen", "sound", "price", "delivery")
        for adjective in ("superb", "awful", "weak", "reliable", "okay")
        if is_held_out(f"the {subject}", adjective)
    }
    assert pairings
    for subject, adjective in pairings:
        clause = f"the {subject} is {adjective}"
        assert not [review.text for review in trained if clause in review.text.casefold()]


def test_a_short_training_writes_a_loadable_folder_and_repeats_itself(training, tmp_path: Path) -> None:
    from transformers import pipeline

    for run in ("first", "second"):
        options = ["--epochs", "1", "--train-size", "200", "--heldout-size", "50", "--threads", "1"]
        files = ["--output-dir", str(tmp_path / run), "--heldout", str(tmp_path / f"{run}.jsonl")]
        assert training.main(options + files) == 0
    rate = pipeline("text-classification", model=str(tmp_path / "first"), device="cpu")
    assert rate("Great screen, but the battery dies fast.")[0]["label"] in STARS
    assert len((tmp_path / "first.jsonl").read_text(encoding="utf-8").splitlines()) == 50
    for name in training.MODEL_FILES:
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes(), name


def test_a_folder_with_other_files_is_not_overwritten(training, tmp_path: Path) -> None:
    from onnxproof.cli import UserError

    (tmp_path / "thesis.doc").write_text("years of work")
    with raises(UserError):
        training.main(["--output-dir", str(tmp_path), "--heldout", str(tmp_path / "h.jsonl")])
    assert (tmp_path / "thesis.doc").read_text() == "years of work"


@pytest.mark.parametrize("option", ["--epochs", "--train-size", "--heldout-size", "--threads"])
def test_counts_below_one_are_refused(training, option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        training.main([option, "0"])
    assert f"argument {option}: must be at least 1, not 0" in capsys.readouterr().err
