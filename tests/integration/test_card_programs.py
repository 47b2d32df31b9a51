"""From raw inputs to final answers: the programs on a card against the original's own public interface.

Nothing of the pipeline takes part in what is expected: it is computed here, from the model's folder.
"""

import onnx
import pytest

from card_programs import programs, run_program, with_inputs
from final_clients import compare_programs, make_releases
from fitting import misfits
from kinds import KINDS
from onnxproof.release.golden import read_golden

pytestmark = pytest.mark.slow

#: Answers of programs that run the fp32 file may differ so much from the original's, over the largest value.
TOLERANCE = 1e-4
#: The share of pixels whose label may differ: at the edge of two segments rounding decides, and CPUs round otherwise.
OTHER_PIXELS = 1e-3
#: Kinds whose cards have a program in JavaScript that takes raw texts.
KINDS_IN_NODE = (
    *("one-label", "multi-label", "dense", "dot", "prompts", "truncated", "nested", "lower-cased", "bare-tokenizer"),
    *("cased", "features", "chat", "translator", "ruled-writer"),
)
#: Of a use that takes long there are fewer raw inputs.
FEWER = {"image-text-to-text": 12}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project whose releases hold the fp32 file alone, of every kind of model."""
    return make_releases(tmp_path_factory.mktemp("kinds"))


def test_every_file_is_what_its_schema_says(project):
    assert misfits(project.folder / "results") == []


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "questions"])
def test_every_program_of_the_card_gives_the_originals_final_answers(project, kind, tmp_path, optimum_python):
    release, model = project.folder / "results" / kind / "release", project.folder / "models" / kind
    use = read_golden(release).final.use
    compared = list(compare_programs(release, model, tmp_path, optimum_python))
    assert len(compared) >= 2, "what was recorded, and a program"
    for heading, count, metrics in compared:
        assert count >= FEWER.get(use, 28)
        check(metrics, heading)


@pytest.mark.parametrize("kind", KINDS_IN_NODE)
def test_the_javascript_program_of_the_card_gives_the_originals_final_answers(project, kind, tmp_path, node_modules):
    release, model = project.folder / "results" / kind / "release", project.folder / "models" / kind
    _, (heading, count, metrics) = compare_programs(release, model, tmp_path, node_modules=node_modules)
    assert count >= 12
    check(metrics, heading)


def check(metrics: dict[str, float | None], what: str) -> None:
    """Assert that answers are the same but for rounding."""
    assert metrics, what
    for metric, value in metrics.items():
        if metric.endswith(("agreement", "match", "cosine_min", "cosine_mean")):
            assert value is not None, (metric, what)
            assert value >= 1 - (OTHER_PIXELS if metric == "pixel_agreement" else TOLERANCE), (metric, value, what)
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


def test_a_graph_says_what_clients_read_of_it(project):
    """Engines read an embedding's width, and feed any BERT with types of tokens."""
    for kind, width in (("dense", 32), ("truncated", 16), ("dot", 64)):
        graph = onnx.load(project.folder / "results" / kind / "release/onnx/model.onnx").graph
        (embedding,) = [output for output in graph.output if output.name == "sentence_embedding"]
        assert embedding.type.tensor_type.shape.dim[1].dim_value == width
        assert "token_type_ids" in {value.name for value in graph.input}


@pytest.mark.parametrize(("kind", "named"), [("dot", True), ("dense", False), ("truncated", False), ("prompts", False)])
def test_a_card_names_servers_only_where_they_give_the_same_vectors(project, kind, named):
    card = (project.folder / "results" / kind / "release/README.md").read_text()
    assert ("text-embeddings-inference" in card) == named
