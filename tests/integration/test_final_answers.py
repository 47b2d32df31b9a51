"""From raw inputs to final answers: the programs on a card against the original's own public interface.

Nothing of the pipeline takes part in what is expected: it is computed here, from the model's folder.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from card_programs import programs, run_program, with_inputs
from kinds import KINDS, TASKS
from onnxproof.card_programs import open_image
from onnxproof.final_answers import USES, measure
from onnxproof.golden import read_golden
from project import make_project

pytestmark = pytest.mark.slow

#: Answers of programs that run the fp32 file may differ so much from the original's, over the largest value.
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project whose releases hold the fp32 file alone, of every kind of model."""
    folder = tmp_path_factory.mktemp("kinds")
    made = make_project(folder)
    for name, save in KINDS.items():
        save(folder / "models" / name)
    models = {
        name: {"source": {"path": f"models/{name}"}} | ({"task": TASKS[name]} if name in TASKS else {})
        for name in KINDS
    }
    benchmark = made.config["benchmark"] | {"pytorch": False}
    made.configure(made.config | {"models": models, "variants": ["fp32"], "benchmark": benchmark})
    run = made.snakemake("--keep-going", timeout=1800)
    assert run.returncode == 0, run.stdout[-4000:]
    return made


def ask_original(use: str, folder: Path) -> Callable[[Any], Any]:
    """Return the original's public interface, as a function of one raw input."""
    from sentence_transformers import CrossEncoder, SentenceTransformer
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer, pipeline

    path = str(folder)
    if use == "sentence-similarity":
        model = SentenceTransformer(path, device="cpu")
        by_prompt = {"query": model.encode_query, "document": model.encode_document}

        def embed(value: Any) -> np.ndarray:
            if isinstance(value, dict):
                return by_prompt[value["prompt"]]([value["text"]])[0]
            return model.encode([value])[0]

        return embed
    if use == "reranking":
        encoder = CrossEncoder(path, device="cpu")
        return lambda pair: float(encoder.predict([tuple(pair)])[0])
    if use in ("text-generation", "text2text-generation"):
        tokenizer = AutoTokenizer.from_pretrained(path)
        loader = AutoModelForCausalLM if use == "text-generation" else AutoModelForSeq2SeqLM
        network = loader.from_pretrained(path).eval()

        def generate(text: str) -> list[int]:
            if tokenizer.chat_template:
                messages = [{"role": "user", "content": text}]
                text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
            options = {"truncation": True, "max_length": 32, "add_special_tokens": not tokenizer.chat_template}
            features = tokenizer(text, return_tensors="pt", **options)
            fed = {name: features[name] for name in ("input_ids", "attention_mask")}
            tokens = network.generate(**fed, max_new_tokens=32, do_sample=False)[0].tolist()
            return tokens[1:] if use == "text2text-generation" else tokens[features["input_ids"].shape[1] :]

        return generate
    ask = pipeline(use, model=path)
    if use == "feature-extraction":
        return lambda text: np.array(ask(text, truncation=True)[0])
    if use == "token-classification":
        return ask
    if use == "fill-mask":
        token = ask.tokenizer.convert_ids_to_tokens
        options = {"truncation": True}
        return lambda text: {
            token(found["token"]): found["score"] for found in ask(text, top_k=5, tokenizer_kwargs=options)
        }
    if use == "text-classification":

        def classify(value: Any) -> dict[str, float]:
            asked = value if isinstance(value, str) else {"text": value[0], "text_pair": value[1]}
            return {found["label"]: found["score"] for found in ask([asked], top_k=None, truncation=True)[0]}

        return classify
    shown = {"image-classification": open_image, "audio-classification": np.asarray}[use]
    count = ask.model.config.num_labels
    return lambda value: {found["label"]: found["score"] for found in ask(shown(value), top_k=count)}


def as_expression(use: str, inputs: list[Any], folder: Path) -> tuple[str, str]:
    """Return the name of a program's inputs, and a Python expression that has these instead."""
    takes = USES[use].takes
    if takes == "images":
        paths = []
        for number, content in enumerate(inputs):
            paths.append(str(folder / f"{number}.image"))
            Path(paths[-1]).write_bytes(content.tobytes())
        return "images", f"[Image.open(path) for path in {paths!r}]"
    if takes == "sounds":
        np.savez(folder / "sounds.npz", *inputs)
        return "sounds", f"list(np.load({str(folder / 'sounds.npz')!r}).values())"
    return "texts", repr([tuple(value) if isinstance(value, list) else value for value in inputs])


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "questions"])
def test_every_program_of_the_card_gives_the_originals_final_answers(project, kind, tmp_path, optimum_python):
    release = project.folder / "results" / kind / "release"
    final = read_golden(release).final
    plain = [index for index, value in enumerate(final.inputs) if not isinstance(value, dict)]
    assert len(plain) >= (12 if final.use == "audio-classification" else 28)
    ask = ask_original(final.use, project.folder / "models" / kind)
    expected = [ask(value) for value in final.inputs]
    activation = final.settings.get("activation", "")
    check(measure(final.use, activation, expected, final.answers), "recorded")
    asked = [final.inputs[index] for index in plain]
    wanted = [expected[index] for index in plain]
    name, expression = as_expression(final.use, asked, tmp_path)
    codes = programs(release, "python")
    assert codes
    for code in codes:
        answers = run_program(with_inputs(code, name, expression), release, ["answers"], optimum_python)["answers"]
        if final.use in ("sentence-similarity", "feature-extraction"):
            answers = [np.array(answer) for answer in answers]
        check(measure(final.use, activation, wanted, answers), code)


def check(metrics: dict[str, float | None], what: str) -> None:
    """Assert that answers are the same but for rounding."""
    assert metrics, what
    for metric, value in metrics.items():
        if metric.endswith(("agreement", "match", "cosine_min")):
            assert value is not None, (metric, what)
            assert value >= 1 - TOLERANCE, (metric, value, what)
        else:
            assert value is not None, (metric, what)
            assert value <= TOLERANCE, (metric, value, what)


def test_questions_are_answered_as_by_the_pipeline_of_transformers_4(project, optimum_python):
    """transformers 5 has no pipeline for this task."""
    release = project.folder / "results/questions/release"
    final = read_golden(release).final
    asked = [tuple(pair) for pair in final.inputs if pair[1].strip()]
    folder = project.folder / "models/questions"
    program = f"""
from transformers import AutoModelForQuestionAnswering, AutoTokenizer, pipeline
import optimum

folder = {str(folder)!r}
model = AutoModelForQuestionAnswering.from_pretrained(folder)
ask = pipeline("question-answering", model=model, tokenizer=AutoTokenizer.from_pretrained(folder))
texts = {asked!r}
answers = [ask(question=question, context=text, align_to_words=False) for question, text in texts]
"""
    expected = run_program(program, release, ["answers"], optimum_python)["answers"]
    kept = [index for index, (_, text) in enumerate(asked) if len(text) < 60]  # longer ones are read in several parts
    assert len(kept) >= 12
    for code in programs(release, "python"):
        answers = run_program(with_inputs(code, "texts", repr(asked)), release, ["answers"], optimum_python)["answers"]
        for index in kept:
            assert answers[index]["answer"] == expected[index]["answer"], code
            assert abs(answers[index]["score"] - expected[index]["score"]) < TOLERANCE
