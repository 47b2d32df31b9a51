"""Timing how a model writes: which cases, what is left out, and what a step does with the cache."""

from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest

import benchmark
from cached_decoder import cached_decoder
from configurations import one, told_problem
from messages import check_message
from onnx_folder import VOCAB_SIZE, write_decoder_folder, write_onnx_folder
from onnxproof import hardware
from onnxproof.benchmark import generation, worker
from onnxproof.benchmark.generation import Limits, WritingCase, WritingPlan
from onnxproof.benchmark.runtimes import load_onnx
from onnxproof.benchmark.timing import ModelSizes
from onnxproof.benchmark.writing import InPlaceWriter, OnnxWriter, Text, can_write, make_onnx_writer
from onnxproof.config.resolve import resolve_models
from onnxproof.graph.generation import generate_greedily
from onnxproof.quantization.passes.cache_in_place import keep_cache_in_place

PLAN = WritingPlan(prompt_lengths=[512, 32], context_lengths=[2048, 128], batch_sizes=[8, 1], new_tokens=16)


@pytest.fixture(scope="module")
def decoder(tmp_path_factory):
    return write_decoder_folder(tmp_path_factory.mktemp("models") / "decoder")


def test_cases_go_from_small_to_large():
    assert [str(case) for case in PLAN.cases()] == [
        "first token after 1x32",
        "next token after 1x128",
        "first token after 1x512",
        "next token after 1x2048",
        "next token after 8x128",
        "next token after 8x2048",
    ]


def test_a_case_may_fill_the_models_context_but_not_more():
    def refused(most_tokens, step, context):
        return Limits(most_tokens, 1e9, 1, 1).refuses(WritingCase(step, 1, context), new_tokens=16)

    assert refused(2064, "next_token", 2048) is None
    assert refused(2063, "next_token", 2048) == "2048 tokens and 16 new are more than the 2063 that the model takes"
    assert refused(2049, "first_token", 2048) is None
    assert refused(2048, "first_token", 2048) == "2048 tokens and 1 new are more than the 2048 that the model takes"
    assert refused(None, "next_token", 10**9) is None


def test_a_case_that_does_not_fit_into_memory_is_left_out():
    case = WritingCase("next_token", 8, 2048)  # 8 x 2,064 tokens, twice: 33,024 tokens of 100 kB
    limits = Limits(most_tokens=None, free_mb=3302.4, token_bytes=100_000, logit_bytes=0)
    assert limits.refuses(case, 16) is None
    tight = Limits(most_tokens=None, free_mb=3302.0, token_bytes=100_000, logit_bytes=0)
    assert tight.refuses(case, 16) == "caches and logits take about 3302 MB, and 3302 MB were free"
    logits = Limits(most_tokens=None, free_mb=2048, token_bytes=0, logit_bytes=600_000)
    assert logits.refuses(WritingCase("first_token", 1, 2048), 16) is not None
    assert logits.refuses(WritingCase("first_token", 1, 512), 16) is None


def test_every_process_counts_for_memory(monkeypatch):
    monkeypatch.setattr(generation, "free_memory_mb", lambda: 123.0)
    workers = [SimpleNamespace(loaded={"cache_bytes": 0}), SimpleNamespace(loaded={"cache_bytes": 70})]  # PyTorch, fp32
    assert generation.limits_of(workers, ModelSizes(1000, 64)) == Limits(64, 123.0, 140, 8000)


def test_a_limit_of_its_group_bounds_the_free_memory_of_a_process(tmp_path, monkeypatch):
    monkeypatch.setattr(hardware.psutil, "virtual_memory", lambda: SimpleNamespace(available=8_000_000_000))
    monkeypatch.setattr(hardware, "CGROUPS", tmp_path)
    monkeypatch.setattr(hardware, "CGROUP_OF_PROCESS", tmp_path / "cgroup")
    assert hardware.free_memory_mb() == 8000
    (tmp_path / "cgroup").write_text("0::/job/step\n")
    (tmp_path / "job/step").mkdir(parents=True)
    for group, limit, used in (("job/step", "max", 1), ("job", "3000000000", 1_000_000_000)):
        (tmp_path / group / "memory.max").write_text(f"{limit}\n")
        (tmp_path / group / "memory.current").write_text(f"{used}\n")
    assert hardware.free_memory_mb() == 2000


def test_figures_count_the_tokens_of_a_step():
    rounds = [[10.0, 10.0], [10.0, 30.0]]
    first = generation.case_record(WritingCase("first_token", 1, 512), 2, rounds, 99.0)
    assert first["tokens_per_s"] == pytest.approx(51_200)
    following = generation.case_record(WritingCase("next_token", 8, 512), 2, rounds, 99.0)
    assert following["tokens_per_s"] == pytest.approx(800)
    assert (following["p50_ms"], following["iterations"], following["peak_rss_mb"]) == (10, 4, 99)


class Recorder:
    """A writer that writes down what it was asked."""

    def __init__(self):
        self.asked = []

    def read(self, prompt):
        self.asked.append(("read", prompt.shape))
        return Text(prompt[:, -1:], None, prompt.shape[1])

    def step(self, text):
        self.asked.append(("step", text.length))
        return Text(text.token, None, text.length + 1)

    def repeat(self, text, batch):
        self.asked.append(("repeat", batch))
        return text

    def cut(self, text, length):
        self.asked.append(("cut", text.length, length))
        return Text(text.token, None, length)


def test_each_turn_times_the_steps_after_the_context():
    writer = Recorder()
    steps = worker.NextTokens(writer, np.zeros((1, 6), dtype=np.int64), batch=3)
    assert writer.asked == [("read", (1, 5)), ("repeat", 3)]
    for before in (5, 8):  # an untimed step fills the context of 6
        writer.asked.clear()
        assert len(steps.time(2)) == 2
        assert writer.asked == [("cut", before, 5), ("step", 5), ("step", 6), ("step", 7)]


def test_each_turn_reads_the_whole_prompt_after_one_token():
    writer = Recorder()
    first = worker.FirstTokens(writer, np.zeros((1, 6), dtype=np.int64))
    writer.asked.clear()
    assert len(first.time(2)) == 2
    assert writer.asked == [("read", (1, 1)), ("read", (1, 6)), ("read", (1, 6))]


def test_a_graph_writes_what_greedy_generation_writes(decoder):
    writer = load_onnx(decoder, 1).writer
    session = onnxruntime.InferenceSession(decoder / "model.onnx", providers=["CPUExecutionProvider"])
    prompt = np.array([[3, 1, 4, 1, 5]])
    expected = generate_greedily(session, prompt[0], 6)
    assert expected[:3] == [14, 28, 56]

    def written(text):
        tokens = []
        for _ in expected:
            tokens.append(text.token[:, 0].tolist())
            text = writer.step(text)
        return tokens

    after = writer.read(prompt)
    assert written(after) == [[token] for token in expected]
    several = writer.repeat(after, 3)
    assert written(several) == [[token] * 3 for token in expected]
    cut = writer.cut(writer.step(writer.step(several)), 5)
    assert cut.cache["past_key_values.0.key"].numpy()[:, 0, :, 0].tolist() == [[3, 1, 4, 1, 5]] * 3
    assert written(Text(several.token, cut.cache, cut.length)) == [[token] * 3 for token in expected]


@pytest.fixture
def in_place(tmp_path, monkeypatch):
    """Return a writer with one buffer for both caches, and what greedy generation writes with the plain graph."""
    monkeypatch.setattr(InPlaceWriter, "ROOM", 4)
    model = cached_decoder()
    plain = session_of(model)
    keep_cache_in_place(model)
    onnx.save(model, tmp_path / "model.onnx")
    return load_onnx(tmp_path, 1).writer, lambda prompt, count: generate_greedily(plain, np.array(prompt), count)


def test_a_graph_that_can_gets_one_buffer_for_both_caches(in_place):
    writer, generate = in_place
    expected = generate([3, 1, 4], 12)
    text = writer.repeat(writer.read(np.array([[3, 1, 4]])), 2)
    written, buffers, logits = [], [], []
    for _ in expected:
        written.append(text.token[:, 0].tolist())
        text = writer.step(text)
        buffers.append(text.cache)
        logits.append(writer.logits[0])
    assert written == [[token] * 2 for token in expected]
    # A buffer of 4 + 4 tokens; where it is full, one with room for 4 more than are needed then.
    shapes = [{array.shape for array in buffer.arrays.values()} for buffer in buffers]
    assert shapes == [{(2, 2, room, 8)} for room in [8] * 5 + [13] * 5 + [18] * 2]
    assert buffers[0] is buffers[4]
    assert all(array is logits[0] for array in logits), "each step writes its logits into the same memory"
    again = writer.cut(text, 3)
    assert again.cache is text.cache
    assert writer.step(Text(np.array([[expected[0]]] * 2), again.cache, 3)).token[:, 0].tolist() == written[1]


@pytest.mark.parametrize("part", [1, 2, 3, 64])
def test_a_prompt_is_read_in_parts(in_place, monkeypatch, part):
    writer, generate = in_place
    monkeypatch.setattr(InPlaceWriter, "PART", part)
    fed = []
    monkeypatch.setattr(writer, "_run", lambda tokens, *rest: fed.append(tokens.size) or run(tokens, *rest))
    run = InPlaceWriter._run.__get__(writer)
    text = writer.read(np.array([[3, 1, 4, 1, 5, 9, 2]]))
    assert fed == {1: [1] * 7, 2: [2, 2, 2, 1], 3: [3, 3, 1], 64: [7]}[part]
    written = []
    for _ in range(6):
        written += text.token[:, 0].tolist()
        text = writer.step(text)
    assert written == generate([3, 1, 4, 1, 5, 9, 2], 6)


def test_the_cache_is_copied_where_the_vocabulary_is_not_known(in_place):
    session = in_place[0].session
    assert isinstance(make_onnx_writer(session), InPlaceWriter)
    outputs = [SimpleNamespace(name="logits", shape=["batch", "tokens", "vocabulary"])]
    unknown = SimpleNamespace(
        get_inputs=session.get_inputs, get_outputs=lambda: outputs, get_modelmeta=session.get_modelmeta
    )
    assert isinstance(make_onnx_writer(unknown), OnnxWriter)


def test_the_prompts_of_several_texts_are_read_at_once(in_place, monkeypatch):
    writer, generate = in_place
    monkeypatch.setattr(InPlaceWriter, "PART", 2)
    prompts = [[3, 1, 4, 1, 5], [2, 7, 1, 8, 2]]
    text = writer.read(np.array(prompts))
    first = text.token[:, 0].tolist()
    second = writer.step(text).token[:, 0].tolist()
    assert [list(pair) for pair in zip(first, second, strict=True)] == [generate(prompt, 2) for prompt in prompts]


def session_of(model):
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def test_only_a_graph_with_a_cache_and_tokens_writes(decoder, tmp_path):
    assert isinstance(load_onnx(decoder, 1).writer, OnnxWriter)
    assert load_onnx(write_onnx_folder(tmp_path / "classifier"), 1).writer is None

    def session(*names):
        inputs = [SimpleNamespace(name=name, shape=["batch", "tokens"]) for name in names]
        return SimpleNamespace(get_inputs=lambda: inputs)

    assert can_write(session("input_ids", "position_ids", "past_key_values.0.key"))
    assert not can_write(session("inputs_embeds", "attention_mask", "past_key_values.0.key"))
    assert not can_write(session("input_ids", "token_type_ids", "past_key_values.0.key"))
    assert not can_write(session("input_ids", "attention_mask"))


def test_the_server_reads_a_prompt_and_times_what_follows(decoder):
    server = worker.Server()
    loaded = server.load("onnx", str(decoder), 1, None, {})
    assert (loaded["writes"], loaded["cache_bytes"], loaded["dtype"]) == (True, 8, None)
    for step in ("first_token", "next_token"):
        server.prepare_step(step, batch=2, context=6, vocab_size=VOCAB_SIZE, seed=0)
        samples = server.run(3)["samples_ms"]
        assert len(samples) == 3
        assert min(samples) > 0


@pytest.mark.parametrize("setting", [{"context_lengths": [1]}, {"prompt_lengths": []}, {"new_tokens": 0}])
def test_a_mistake_in_the_settings_is_one_sentence(setting):
    check_message(told_problem(one(benchmark={"generation": setting})))


def test_a_model_may_have_cases_of_its_own():
    models = {name: {"source": {"path": "."}} for name in ("short", "long")}
    models["short"]["benchmark"] = {"generation": {"context_lengths": [64]}}
    resolved = resolve_models({"models": models, "benchmark": {"generation": {"new_tokens": 4}}})
    assert resolved["short"]["benchmark"]["generation"] == {
        "prompt_lengths": [32, 512, 2048],
        "context_lengths": [64],
        "batch_sizes": [1, 8],
        "new_tokens": 4,
    }
    assert resolved["long"]["benchmark"]["generation"]["context_lengths"] == [128, 2048]


def test_the_script_has_the_defaults_of_the_configuration():
    arguments = benchmark.parse_arguments(
        ["--model", "m", "--variant", "q4", "--contender", "c", "--baseline", "b", "--output", "o"]
    )
    asked = {
        "prompt_lengths": arguments.prompt_lengths,
        "context_lengths": arguments.context_lengths,
        "batch_sizes": arguments.generation_batch_sizes,
        "new_tokens": arguments.new_tokens,
    }
    assert asked == resolve_models({"models": {"m": {"source": {"path": "."}}}})["m"]["benchmark"]["generation"]
