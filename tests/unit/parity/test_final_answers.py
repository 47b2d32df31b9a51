"""Final answers to raw inputs: how they are kept and compared, and how the programs of a card give them."""

import io
import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper
from PIL import Image
from tokenizers import Tokenizer
from tokenizers.models import BPE, WordPiece

from messages import raises
from onnxproof.inputs.final_answers import USES, FinalAnswers, from_json
from onnxproof.original.final_images import has_method
from onnxproof.original.interfaces import cleans_text, load_own_tokenizer
from onnxproof.parity import card_programs
from onnxproof.parity.final import Program, measure_final
from onnxproof.parity.final_answers import likeliest_span, measure
from onnxproof.parity.metrics import embedding_metrics, rank_overlap, similarities, value_metrics
from onnxproof.release.card import CLIENTS, USAGE, usage_examples

ROOT = Path(__file__).parents[3]

MERGES = {"WordPiece": {}, "BPE": {"merges": []}}
RANDOM = np.random.default_rng(0)


def test_answers_survive_being_written():
    vectors = [RANDOM.standard_normal(4).astype(np.float32) for _ in range(2)]
    final = FinalAnswers("sentence-similarity", "encode", ["a", {"text": "b", "prompt": "query"}], vectors, {"x": 1})
    facts, arrays = final.as_json()
    again = from_json(json.loads(json.dumps(facts)), arrays)
    assert again.inputs == final.inputs
    assert again.settings == {"x": 1}
    np.testing.assert_array_equal(np.stack(again.answers), np.stack(vectors))


MATCH = "greedy_token_match"
WRITTEN = {MATCH: 0.75}
SEGMENTED = {"detection_agreement": 0.5, "pixel_agreement": 0.75}


def segments(label, score=0.9, columns=8):
    """An answer with one segment, over the upper half of an image of 4 by 8 pixels or a part of it."""
    places = np.zeros((4, 8), dtype=np.uint8)
    places[:2, :columns] = 3
    return {"segments": [{"id": 3, "label": label, "score": score}], "places": places}


def test_arrays_inside_answers_survive_being_written_in_whichever_order_they_lie():
    image, places = np.arange(5, dtype=np.uint8), np.arange(6, dtype=np.uint8).reshape(2, 3).T
    answer = {"segments": [{"id": 1, "label": "cat", "score": 0.5}], "places": places}
    final = FinalAnswers("image-segmentation", "", [{"image": image, "text": "Why?"}], [answer])
    facts, arrays = final.as_json()
    assert all(array.flags.c_contiguous for array in arrays.values())  # safetensors does not look
    assert final.sizes() == [11]
    again = from_json(json.loads(json.dumps(facts)), arrays)
    assert again.inputs[0]["text"] == "Why?"
    assert again.answers[0]["segments"] == answer["segments"]
    np.testing.assert_array_equal(again.inputs[0]["image"], image)
    np.testing.assert_array_equal(again.answers[0]["places"], places)


@pytest.mark.parametrize(
    ("use", "activation", "expected", "other", "metrics"),
    [
        ("text-classification", "softmax", {"a": 0.9, "b": 0.1}, {"a": 0.4, "b": 0.6}, {"top1_agreement": 0.5}),
        ("text-classification", "sigmoid", {"a": 0.9, "b": 0.8}, {"a": 0.9, "b": 0.4}, {"label_agreement": 0.75}),
        ("text-classification", "none", {"a": 4.0}, {"a": 5.0}, {"max_value_diff": 1.0}),
        ("reranking", "sigmoid", 0.9, 0.6, {"max_probability_diff": 0.3}),
        ("reranking", "none", 7.0, 6.0, {"max_value_diff": 1.0}),
        (
            "token-classification",
            "",
            [{"entity": "P", "score": 0.9, "start": 0, "end": 3}],
            [],
            {"token_agreement": 0.5, "max_probability_diff": 0.0},
        ),
        (
            "audio-frame-classification",
            "",
            np.array([[0.9, 0.1]]),
            np.array([[0.4, 0.2]]),
            {"label_agreement": 0.75, "max_probability_diff": 0.5},
        ),
        ("fill-mask", "", {"cat": 0.5, "dog": 0.2}, {"dog": 0.3, "cat": 0.3}, {"top1_agreement": 0.5}),
        ("multiple-choice", "", [0.6, 0.3, 0.1], [0.2, 0.7, 0.1], {"top1_agreement": 0.5, "max_probability_diff": 0.4}),
        ("question-answering", "", {"answer": "x"}, {"answer": "y"}, {"span_agreement": 0.5}),
        (
            "object-detection",
            "",
            [{"label": "cat", "score": 0.9, "box": [0, 0, 9, 9]}],
            [{"label": "cat", "score": 0.9, "box": [20, 0, 29, 9]}],
            {"detection_agreement": 0.5},
        ),
        ("semantic-segmentation", "", np.zeros((2, 2)), np.eye(2), {"pixel_agreement": 0.75}),
        ("depth-estimation", "", np.ones((2, 2)), np.eye(2), {"mean_relative_diff": 0.25, "max_relative_diff": 1}),
        ("text-generation", "", [1, 2, 3, 4], [1, 2], {"greedy_token_match": 0.75}),
        ("automatic-speech-recognition", "", "well said", "well paid", {"token_agreement": 17 / 18}),
        ("speech-to-text", "", " well said", " well sold", {"greedy_token_match": 0.85}),
        ("automatic-speech-recognition", "", "sea", "", {"token_agreement": 0.5}),
        ("image-to-text", "", {"text": "a b", "tokens": [1, 2]}, {"text": "a", "tokens": [1]}, WRITTEN),
        ("image-to-text", "", {"text": "a b", "tokens": [1, 2]}, {"text": "b", "tokens": [1, 2]}, {MATCH: 0.5}),
        ("image-to-image", "", np.full((2, 2, 3), 8), np.full((2, 2, 3), 4), {"mean_relative_diff": 0.25}),
        ("image-segmentation", "", segments("cat"), segments("dog"), SEGMENTED),
        ("image-segmentation", "", segments("cat"), segments("cat", 0.7), {"max_probability_diff": 0.2}),
        ("image-segmentation", "", segments("cat"), segments("cat", columns=2), {"detection_agreement": 0.5}),
    ],
)
def test_a_wrong_answer_counts_by_its_kind(use, activation, expected, other, metrics):
    same = measure(use, activation, [expected, expected], [expected, expected])
    for name, value in same.items():
        assert value == pytest.approx(0 if name.endswith("diff") or name == "value_nrmse" else 1), name
    found = measure(use, activation, [expected, expected], [expected, other])
    for name, value in metrics.items():
        assert found[name] == pytest.approx(value), name


def test_vectors_of_other_tokens_are_no_answer():
    left, right = RANDOM.standard_normal((3, 4)), RANDOM.standard_normal((2, 4))
    assert measure("feature-extraction", "", [left], [right])["cosine_min"] is None
    assert measure("feature-extraction", "", [left], [left])["cosine_min"] == pytest.approx(1)


def test_the_likeliest_span_lies_in_the_context_and_is_not_longer_than_allowed():
    start, end = np.zeros(20), np.zeros(20)
    start[1], end[2] = 9, 9  # in the question
    start[4], end[19] = 5, 6  # 16 tokens: too long
    end[7] = 4
    first, last, score = likeliest_span(start, end, np.arange(20) > 3)
    assert (first, last) == (4, 7)
    assert 0 < score < 1


def test_an_error_of_a_regression_is_counted_in_spreads():
    expected = RANDOM.normal(3, 2, (200, 1))
    metrics = value_metrics(expected, expected + 0.1 * expected.std())
    assert metrics["value_nrmse"] == pytest.approx(0.1)
    assert metrics["order_agreement"] == 1
    assert value_metrics(expected, expected * np.nan)["value_nrmse"] is None


def test_a_norm_counts_where_embeddings_are_compared_by_their_dot_product():
    vectors = RANDOM.standard_normal((40, 8))
    scaled = vectors * np.linspace(1, 3, 40)[:, None]
    assert embedding_metrics(vectors, scaled)["rank_overlap"] == 1
    by_dot = embedding_metrics(vectors, scaled, "dot")
    assert by_dot["rank_overlap"] < 1
    assert by_dot["max_norm_diff"] == pytest.approx(2)
    assert rank_overlap(vectors, vectors, by="euclidean") == 1


@pytest.mark.parametrize("by", ["cosine", "dot", "euclidean", "manhattan"])
def test_similarities_are_those_of_sentence_transformers(by):
    util = pytest.importorskip("sentence_transformers.util")
    vectors = RANDOM.standard_normal((5, 3)).astype(np.float32)
    function = {"cosine": util.cos_sim, "dot": util.dot_score, "euclidean": util.euclidean_sim}.get(
        by, util.manhattan_sim
    )
    np.testing.assert_allclose(similarities(vectors, by), function(vectors, vectors).numpy(), atol=1e-5)


CARD = """## Use

### Optimum

```python
other = 1
```

### onnxruntime and tokenizers alone

`pip install onnxruntime`

```python
from pathlib import Path
folder = Path(".")
texts = ["a"]
file = folder / "onnx/model_quantized.onnx"
def embed(texts, prompt=""):
    return [(str(file), prompt + text) for text in texts]
answers = embed(texts)
print(answers)
```

## Equality
"""


def test_the_program_of_a_card_answers_other_inputs_with_another_file(tmp_path, capsys):
    assert card_programs.program_of(CARD, "Another") is None
    program = card_programs.program_of(CARD, USES["sentence-similarity"].heading)
    assert "other" not in program
    program = card_programs.with_file(program, "onnx/model_quantized.onnx", "onnx/model.onnx")
    embed = card_programs.load_function(program, "embed", tmp_path)
    final = FinalAnswers(
        "sentence-similarity",
        "",
        ["x", "y", {"text": "z", "prompt": "q"}],
        [None] * 3,
        {"prompts": {"q": "query: "}},
    )
    answers = card_programs.ask(final, embed, size=2)
    assert answers == [(str(tmp_path / "onnx/model.onnx"), text) for text in ("x", "y", "query: z")]
    assert capsys.readouterr().out == ""


def test_a_word_that_only_one_names_is_at_most_as_likely_as_the_others_last():
    original = [{"cat": 0.3, "dog": 0.2}]
    metrics = measure("fill-mask", "", original, [{"cow": 0.9, "hen": 0.5}])
    assert metrics["top1_agreement"] == 0
    assert metrics["max_probability_diff"] == pytest.approx(0.9 - 0.2)  # of the cow, which the original names nowhere
    assert measure("fill-mask", "", original, [{}])["max_probability_diff"] == 0.3
    near = measure("fill-mask", "", original, [{"cat": 0.3, "hen": 0.2}])  # two words as likely, one of them cut off
    assert near["max_probability_diff"] == 0


COUNTING = """
from pathlib import Path
import onnxruntime
folder = Path(".")
session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
def score(pairs):
    return [session.get_session_options().intra_op_num_threads for _ in pairs]
"""


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_a_program_has_as_many_threads_as_it_is_given(threads, tmp_path):
    values = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "tiny", values[:1], values[1:])
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), tmp_path / "model.onnx"
    )
    program, opened = Program(COUNTING, "model.onnx"), onnxruntime.InferenceSession
    final = FinalAnswers("reranking", "", [["a", "b"]], [float(threads)], {"activation": "none"})
    measured = measure_final(program, tmp_path, "model.onnx", final, False, threads)
    assert measured["alone"]["max_value_diff"] == 0.0
    assert onnxruntime.InferenceSession is opened


def test_every_program_opens_its_sessions_where_it_can_be_given_threads():
    for path in (ROOT / "workflow/resources/usage").glob("*/onnxruntime*.j2"):
        text = path.read_text()
        opened = [call for call in ("onnxruntime.InferenceSession(", "open_model(") if call in text]
        assert opened or "{% include" in text or "{% extends" in text, path
        assert text.count("InferenceSession") == text.count("onnxruntime.InferenceSession("), path


def test_a_program_that_opens_the_graphs_of_a_writer_has_the_threads_too(tmp_path):
    program = """
folder = "."
open_model = lambda file, threads: threads
model = open_model(folder + "/model.onnx", threads=0)
def generate(prompts):
    return [model for _ in prompts]
"""
    assert card_programs.load_function(program, "generate", tmp_path)(["a"]) == [0]
    assert card_programs.load_function(program, "generate", tmp_path, threads=2)(["a"]) == [2]


def test_an_image_with_a_prompt_is_asked_as_a_pair():
    file = io.BytesIO()
    Image.new("L", (3, 2)).save(file, "PNG")
    value = {"image": np.frombuffer(file.getvalue(), dtype=np.uint8), "text": "Why?"}
    final = FinalAnswers("image-text-to-text", "", [value] * 3, [None] * 3)
    answers = card_programs.ask(final, lambda prompts: [(image.size, text) for image, text in prompts], size=2)
    assert answers == [((3, 2), "Why?")] * 3


@pytest.mark.parametrize("names", [("post_process_object_detection",), ("post_process_panoptic_segmentation", "none")])
def test_an_image_processor_without_the_function_of_a_pipeline_is_told(names, capsys):
    special = SimpleNamespace(processor=SimpleNamespace(post_process_panoptic_segmentation=1, none=2))
    general = SimpleNamespace(processor=(None, SimpleNamespace()))
    assert has_method(special, "m", *names) == (names[0] if len(names) > 1 else None)
    capsys.readouterr()
    assert has_method(general, "m", *names) is None
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("m: its SimpleNamespace has no post_process_")


@pytest.mark.parametrize(("kind", "cleans"), [("WordPiece", True), ("BPE", False)])
def test_spaces_before_punctuation_stay_as_in_transformers_5(kind, cleans):
    transformers = pytest.importorskip("transformers")
    backend = Tokenizer(
        {"WordPiece": WordPiece, "BPE": BPE}[kind](vocab={"a": 0, ".": 1, "?": 2}, unk_token="?", **MERGES[kind])
    )
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=backend, clean_up_tokenization_spaces=True)
    assert cleans_text(tokenizer) == cleans
    assert tokenizer.decode([0, 1]) == ("a." if cleans else "a .")


def test_a_model_that_writes_without_a_vocabulary_is_told(tmp_path, capsys):
    assert load_own_tokenizer("m", tmp_path) is None
    assert capsys.readouterr().out.startswith("m: it has no tokenizer for its text (there is no vocabulary)")


@pytest.mark.parametrize(
    ("shown", "file", "named", "found"),
    [
        ("onnx/decoder_model_quantized.onnx", "onnx/decoder_model.onnx", "encoder_model_quantized", "encoder_model"),
        ("onnx/model_quantized.onnx", "onnx/model_quantized_invariant.onnx", "model_quantized", None),
    ],
)
def test_all_files_of_a_program_follow_the_variant(shown, file, named, found):
    expected = found or "model_quantized_invariant"
    assert card_programs.with_file(f'load("{named}.onnx")', shown, file) == f'load("{expected}.onnx")'


@pytest.mark.parametrize("pads", [True, False])
@pytest.mark.parametrize("activation", ["softmax", "sigmoid", "none"])
@pytest.mark.parametrize("use", USES)
def test_every_use_has_a_program_with_its_function(use, activation, pads):
    usage = {
        "takes": USES[use].takes,
        "activation": activation,
        "pads": pads,
        "prompts": {"query": 'say "'},
        "default_prompt": "\U0001f600: ",
        "chat": {"before": "<|user|>\n", "behind": "'\n", "strips": True},
        "max_tokens": 64,
    }
    examples = {example["file"]: example["code"] for example in usage_examples(use, "onnx/model.onnx", usage)}
    assert (USAGE / use).is_dir()
    (client,) = [name for name, client in CLIENTS.items() if client.name == USES[use].heading]
    assert f"def {USES[use].function}(" in examples[client]
    given = {"images": "images", "images with prompts": "prompts", "sounds": "sounds"}.get(USES[use].takes, "texts")
    for name, code in examples.items():
        if name.endswith(".py"):
            compile(code, name, "exec")
            assert f"\n{given} = " in code
            assert "\nanswers = " in code


def test_an_original_without_an_answer_to_most_inputs_is_refused_in_a_line(monkeypatch):
    from onnxproof.cli import UserError
    from onnxproof.original import final_answers
    from onnxproof.original.model import Original

    class Tokenizer:
        model_max_length = 512

        def __call__(self, text):
            return {"input_ids": text.split()}

    def ask(text):
        if len(text) > 12:
            raise ValueError("its table ends here\nand more")
        return {"a": 1.0}

    interface = final_answers.Interface("pipeline('text-classification')", ask)
    monkeypatch.setitem(final_answers._ASK, "text-classification", lambda *_: interface)
    original = Original("text-classification", {"model_type": "bert"}, None, frozenset(), Tokenizer(), 512)

    with pytest.raises(UserError) as told:
        final_answers.record_final_answers(original, "m", None)

    said = r"m: pipeline\('text-classification'\) of the original has no answer to \d+ of \d+ raw inputs: "
    assert re.fullmatch(said + "its table ends here", str(told.value))


RULES = {
    "repetition_penalty": {"repetition_penalty": 1.3},
    "no_repeat_ngram_size": {"no_repeat_ngram_size": 2},
    "no token twice": {"no_repeat_ngram_size": 1},
    "encoder_no_repeat_ngram_size": {"encoder_no_repeat_ngram_size": 2},
    "bad_words_ids": {"bad_words_ids": [[3], [4, 5], [6, 7, 8]]},
    "min_length": {"min_length": 9},
    "min_new_tokens": {"min_new_tokens": 4},
    "both": {"min_length": 5, "min_new_tokens": 6},
    "suppress_tokens": {"suppress_tokens": [1, 2, 3, 4]},
    "begin_suppress_tokens": {"begin_suppress_tokens": [1, 2, 3, 4, 5, 6]},
    "forced_eos_token_id": {"forced_eos_token_id": 9},
}


@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize("given", [1, 4])
def test_the_rule_of_a_program_chooses_what_the_logits_processor_of_transformers_leaves(rules, given):
    import torch
    from transformers import GenerationConfig, GenerationMixin

    from onnxproof.release.card import _environment

    settings, end, most, words = RULES[rules], 0, 14, 10
    text = _environment().get_template("choose.py.j2").render(rules=settings, first=[0])
    program: dict = {"np": np, "ends": [end]}
    exec(text, program)
    source = [3, 1, 4, 1, 5, 9, 2, 6]
    extra = [source] if "encoder_no_repeat_ngram_size" in settings else []

    class Network(GenerationMixin):
        class config:  # noqa: N801
            is_encoder_decoder = True

    config = GenerationConfig(eos_token_id=end, max_length=most, **settings)
    config._eos_token_tensor = torch.tensor([end])
    generator = np.random.default_rng(given)
    changed = 0
    for length in [*range(given, most)] * 20:
        tokens = generator.integers(0, words, length).tolist()
        scores = generator.standard_normal(words).astype(np.float32)
        scores[end] += 1.0
        processors = Network()._get_logits_processor(
            config, input_ids_seq_length=given, encoder_input_ids=torch.tensor([source]), device="cpu"
        )
        left = processors(torch.tensor([tokens]), torch.from_numpy(scores.copy())[None])[0]
        changed += int(left.argmax()) != int(scores.argmax())
        assert program["choose"](scores, tokens, given, most, *extra) == int(left.argmax())
    assert changed, "no length at which the rule matters"


def test_a_sound_that_is_longer_than_the_models_window_stops_the_program_in_one_line():
    """The extractor would cut it, and the text of the rest would be missing without a word."""
    examples = {
        example["file"]: example["code"] for example in usage_examples("speech-to-text", "m.onnx", {"longest": 8})
    }
    (program,) = (code for code in examples.values() if "def write_about(" in code)
    function = "def write_about(" + program.split("def write_about(")[1].split("\n\n\n")[0]
    heard = []

    def extractor(mono, **_):
        heard.append(mono)
        raise InterruptedError

    names = {"np": np, "extractor": extractor, "rate": 4}
    exec(function, names)
    with raises(ValueError):
        names["write_about"](np.zeros((2, 9), dtype=np.float32), 3)
    with pytest.raises(InterruptedError):
        names["write_about"](np.zeros(8, dtype=np.float32), 3)
    assert [len(mono) for mono in heard] == [8]
