"""Hundreds of model folders with one thing wrong: each is refused by one line, or answered as its original answers.

The original is asked through its own public interface, outside the pipeline. Where that raises, so must the pipeline
refuse. Equal networks are exported once.
"""

import shutil
from functools import partial
from pathlib import Path

import pytest
from conftest import made_once

from architectures import (
    BACKBONES,
    DECODERS,
    ENCODERS,
    LISTENERS,
    save_cross_encoder,
    save_image_model,
    save_listener,
    save_sentence_transformer,
    save_text_model,
)
from mutations import mutate
from outcomes import TOLERANCE, answers_of_graph, answers_of_original, difference, exported_once, run_steps

STAR = Path(__file__).parents[2] / "examples" / "star-rating-tiny"


def save_encoder_with(head: str, folder: Path, encoder: str, **options: object) -> None:
    config_class, sizes = ENCODERS[encoder]
    save_text_model(folder, config_class, head, sizes | options)


def save_decoder(folder: Path, decoder: str, head: str, **options: object) -> None:
    config_class, sizes = DECODERS[decoder]
    save_text_model(folder, config_class, head, sizes | options)


def save_vit(folder: Path) -> None:
    config_class, options, side = BACKBONES["vit"]
    save_image_model(folder, config_class, "AutoModelForImageClassification", options | {"num_labels": 6}, side)


def save_wave_classifier(folder: Path) -> None:
    config_class, options = LISTENERS["wav2vec2"]
    save_listener(folder, config_class, "AutoModelForAudioClassification", options)


#: Models of different kinds, whose folders are mutated.
BASES = {
    "stars": partial(shutil.copytree, STAR),
    "sentences": partial(save_sentence_transformer, pooling="cls", dense=True),
    "reranker": save_cross_encoder,
    "tokens": partial(save_encoder_with, "AutoModelForTokenClassification", encoder="roberta", num_labels=5),
    "writer": partial(save_decoder, decoder="llama", head="AutoModelForCausalLM", tie_word_embeddings=False),
    "decoder": partial(save_decoder, decoder="qwen2", head="AutoModelForSequenceClassification", num_labels=3),
    "images": save_vit,
    "sounds": save_wave_classifier,
}
EACH = 50
#: Mutations of the fast suite: those that are refused from the files alone, so that nothing is exported.
FAST = 4


@pytest.fixture(scope="module")
def bases(tmp_path_factory) -> Path:
    def make(folder: Path) -> None:
        for name, save in BASES.items():
            save(folder / name)

    return made_once(tmp_path_factory, "mutated-bases", make)


def mutated(bases: Path, base: str, number: int, folder: Path) -> str:
    """Write the mutation of a base with this number, and say what it is."""
    shutil.copytree(bases / base, folder, copy_function=shutil.copyfile)
    others = [bases / name for name in sorted(BASES) if name != base]
    return mutate(folder, f"{base}-{number}", others)


def fault_of(model: str, folder: Path, scratch: Path) -> str | None:
    """Return what is wrong with the pipeline's answer to a folder; None where it is refused in a line, or right."""
    outcome = run_steps(model, folder, scratch)
    if outcome.refused is not None:
        is_line = outcome.refused.startswith(f"{model}:") and "\n" not in outcome.refused
        return None if is_line else f"no line that names the model: {outcome.refused}"
    actual = answers_of_graph(outcome)
    try:
        expected = answers_of_original(folder, outcome.task)
    except Exception as error:  # whatever the libraries raise
        return f"the original itself raises {type(error).__name__}: {error}"
    worst = difference(expected, actual, outcome.task)
    return None if worst <= TOLERANCE else f"differs by {worst}"


@pytest.mark.slow
@pytest.mark.parametrize("base", BASES)
def test_every_mutated_folder_is_refused_in_a_line_or_answered_right(bases, base, tmp_path):
    faults = {}
    with exported_once(tmp_path / "cache"):
        for number in range(EACH):
            work = tmp_path / "work"
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir()
            what = mutated(bases, base, number, work / "model")
            fault = fault_of(f"{base}-{number}", work / "model", work / "out")
            if fault is not None:
                faults[f"{number}: {what}"] = fault
    assert faults == {}


@pytest.mark.parametrize("number", range(FAST))
@pytest.mark.parametrize("base", BASES)
def test_a_mutated_folder_is_read_or_refused_in_a_line(bases, base, number, tmp_path):
    """Up to the weights: the steps that load them are in the long suite."""
    import download
    from onnxproof.cli import UserError

    mutated(bases, base, number, tmp_path / "model")
    options = ["--model", "m", "--path", str(tmp_path / "model"), "--output-dir", str(tmp_path / "source")]
    told = None
    try:
        download.main([*options, "--manifest", str(tmp_path / "source.json")])
    except UserError as error:
        told = str(error)
    assert told is None or (told.startswith("m: ") and "\n" not in told)
    assert (tmp_path / "source").exists() is (told is None)
