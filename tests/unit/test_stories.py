"""Stories are true of the world that they tell of, and the language model of them is what its report says."""

import itertools
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
MODEL = EXAMPLES / "story-teller-tiny"
FILES = {"heldout": EXAMPLES / "story-heldout.jsonl", "calibration": EXAMPLES / "story-calibration.jsonl"}


@pytest.fixture
def stories(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import stories

    return stories


@pytest.fixture
def training(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import train_story_teller

    return train_story_teller


def read_stories(file: Path) -> list[str]:
    return [json.loads(line)["text"] for line in file.read_text(encoding="utf-8").splitlines()]


def turns(stories, text: str) -> list[str]:
    """Return the turns of a chat, without the tokens that begin and end them."""
    return [turn.split(">", 1)[1] for turn in text.split(stories.END) if turn]


def test_half_of_the_stories_answer_a_request(stories) -> None:
    told = stories.StoryWriter(1, held_out=False).write(400)
    assert len(set(told)) == 400
    assert all(text.endswith(stories.END) for text in told)
    assert 120 < sum(text.startswith(stories.USER) for text in told) < 280
    assert not [text for text in told if re.search(r"[{}]", text)], "every gap of a pattern is filled"


def test_answers_are_what_the_story_said_last(stories) -> None:
    asked = 0
    for text in stories.StoryWriter(2, held_out=False).write(600):
        if not text.startswith(stories.USER):
            continue
        _, story, *rest = turns(stories, text)
        for question, answer in zip(rest[::2], rest[1::2], strict=True):
            if counted := re.fullmatch(r"How many (.+) did (.+) have\?", question):
                _things, name = counted.groups()
                sentences = story.split(". ")
                totals = [
                    re.search(r"had (\w+) (\w+)", after)[1]
                    for before, after in itertools.pairwise(sentences)
                    if after.startswith("So now") and name in before
                ]
                assert answer.startswith(f"{name} had {totals[-1]} "), text
            elif question.startswith("Who has"):
                assert answer.split(" has")[0] in story
            asked += 1
    assert asked > 200


@pytest.mark.parametrize("held_out", [False, True])
def test_held_out_stories_give_no_one_a_thing_that_the_others_do(stories, held_out: bool) -> None:
    writer = stories.StoryWriter(3, held_out)
    people = [person for _ in range(200) for person in writer._cast()]
    assert {stories.is_held_out(person.name, person.things[0]) for person in people} == {held_out}


def test_files_of_stories_are_those_of_the_report_and_are_not_trained_on(training) -> None:
    report = json.loads((MODEL / "training_report.json").read_text())
    written = {name: read_stories(file) for name, file in FILES.items()}
    assert written["heldout"] == training.StoryWriter(report["seed"], True).write(report["heldout_size"])
    assert written["calibration"] == training.StoryWriter(report["seed"] + 1, False).write(training.CALIBRATION_STORIES)
    assert not set(written["heldout"]) & set(written["calibration"])


def test_folder_is_small_and_holds_only_what_a_model_repository_would(training) -> None:
    assert {path.name for path in MODEL.iterdir()} == training.MODEL_FILES
    assert sum(path.stat().st_size for path in MODEL.iterdir()) < 6_000_000
    report = json.loads((MODEL / "training_report.json").read_text())
    assert f"**{report['held_out']['perplexity']:.4f}**" in (MODEL / "README.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_perplexity_is_the_recorded_one_and_answers_are_often_right(training) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    model = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32).eval()
    told = read_stories(FILES["heldout"])
    recorded = json.loads((MODEL / "training_report.json").read_text())["held_out"]
    measured = training.measure_perplexity(model, tokenizer(told[:60])["input_ids"])
    assert measured == pytest.approx(recorded["perplexity"], abs=0.08)
    assert measured < 0.01 * len(tokenizer)
    answered = training.measure_answers(model, tokenizer, told[:60])
    assert answered["questions"] > 20
    assert answered["answered_right"] > 0.25


@pytest.mark.slow
def test_a_short_training_writes_a_chat_model_and_repeats_itself(training, tmp_path: Path) -> None:
    from transformers import pipeline

    for run in ("first", "second"):
        options = ["--train-size", "60", "--heldout-size", "2", "--threads", "1"]
        files = ["--output-dir", str(tmp_path / run), "--heldout", str(tmp_path / f"{run}.jsonl")]
        assert training.main([*options, *files, "--calibration", str(tmp_path / f"{run}-calibration.jsonl")]) == 0
    tell = pipeline("text-generation", model=str(tmp_path / "first"), device="cpu")
    chat = [{"role": "user", "content": "Tell me a story about Mara."}]
    told = tell(chat, max_new_tokens=5)[0]["generated_text"][-1]
    assert told["role"] == "assistant"
    for name in training.MODEL_FILES:
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes(), name
