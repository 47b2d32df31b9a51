"""The benchmark script, run for real on tiny models."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import psutil
import pytest

import benchmark
import export
from messages import raises
from onnx_folder import (
    CONFIG,
    INPUTS,
    LABELS,
    POSITIONS,
    VOCAB_SIZE,
    WIDTH,
    write_decoder_folder,
    write_onnx_folder,
)
from onnxproof.benchmark import runtimes, timing, worker
from onnxproof.benchmark.timing import Contender, Worker
from onnxproof.cli import UserError

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def fp32(tmp_path_factory):
    return write_onnx_folder(tmp_path_factory.mktemp("models") / "fp32")


@pytest.fixture
def output(tmp_path):
    return tmp_path / "benchmark" / "out.json"


@pytest.fixture(autouse=True)
def no_child_is_left():
    before = psutil.Process().children(recursive=True)
    yield
    started = set(psutil.Process().children(recursive=True)) - set(before)
    _, alive = psutil.wait_procs(started, timeout=30)
    assert alive == []


def command_line(variant, contender, baseline, output, *options):
    return [
        *("--model", "tiny", "--variant", variant, "--contender", str(contender)),
        *("--baseline", str(baseline), "--output", str(output), "--batch-sizes", "1", "2"),
        *("--sequence-lengths", "8", "--threads", "1", "--warmup", "1", "--rounds", "3"),
        *("--iterations", "4", "--load-repeats", "2", *options),
    ]


def check_sound(record, rounds=3, iterations=4):
    """Check that every figure of a record follows from its raw samples."""
    for case in record["cases"] + (record["baseline"] or {"cases": []})["cases"]:
        samples = np.array(case["samples_ms"])
        assert samples.shape == (rounds, iterations)
        assert (samples > 0).all()
        assert case["iterations"] == rounds * iterations
        assert case["p50_ms"] == pytest.approx(np.percentile(samples, 50))
        assert case["p50_ms"] <= case["p90_ms"] <= case["p99_ms"] <= samples.max()
        assert case["items_per_s"] == pytest.approx(1000 * case["batch"] / case["p50_ms"])
    assert record["load_ms"] == pytest.approx(np.median(record["load_samples_ms"]))
    assert 0 < record["rss_before_load_mb"] <= record["peak_rss_mb"]
    assert record["cpu"]["model"]


def check_speedups(record):
    for case, baseline in zip(record["cases"], record["baseline"]["cases"], strict=True):
        ratios = np.median(baseline["samples_ms"], axis=1) / np.median(case["samples_ms"], axis=1)
        assert case["speedup_vs_fp32"] == pytest.approx(np.median(ratios))
        assert case["speedup_iqr"] == pytest.approx(np.percentile(ratios, [25, 75]))
        assert "speedup_vs_fp32" not in baseline
        shape = [key for key in ("step", "batch", "sequence", "context", "intra_op_threads") if key in case]
        assert {key: case[key] for key in shape} == {key: baseline[key] for key in shape}


def test_a_variant_is_timed_beside_fp32(fp32, output, capsys):
    benchmark.main(command_line("int8", fp32, fp32, output, "--threads", "2", "1"))
    record = json.loads(output.read_text())
    check_sound(record)
    check_speedups(record)
    shapes = [(case["intra_op_threads"], case["batch"], case["sequence"]) for case in record["cases"]]
    assert shapes == [(1, 1, 8), (1, 2, 8), (2, 1, 8), (2, 2, 8)]
    assert (record["model"], record["variant"]) == ("tiny", "int8")
    assert record["provider"] == "CPUExecutionProvider"
    assert record["intra_op_threads"] == 2
    assert record["size_mb"] == pytest.approx((fp32 / "model.onnx").stat().st_size / 1e6)
    assert len(record["load_samples_ms"]) == 2
    assert set(record["versions"]) == {"python", "numpy", "onnxruntime"}
    assert record["settings"]["execution_mode"] == "sequential"
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert lines[0].startswith("tiny int8 1x8 threads=1: p50 ")
    assert lines[0].endswith("x fp32")


STEPS = [
    *("--prompt-lengths", "4", "30", str(POSITIONS), "--context-lengths", "6"),
    *("--generation-batch-sizes", "2", "1", "--new-tokens", "4"),
]


def check_steps(record, threads, rounds=3):
    """Check that every figure of a record of how a model writes follows from its raw samples."""
    writing = record["generation"]
    for case in writing["cases"] + (writing["baseline"] or {"cases": []})["cases"]:
        samples = np.array(case["samples_ms"])
        tokens = case["context"] if case["step"] == "first_token" else case["batch"]
        assert samples.shape == (rounds, 1 if case["step"] == "first_token" else writing["new_tokens"])
        assert samples.min() > 0
        assert case["iterations"] == samples.size
        assert case["p50_ms"] == pytest.approx(np.percentile(samples, 50))
        assert case["p50_ms"] <= case["p90_ms"] <= case["p99_ms"]
        assert case["tokens_per_s"] == pytest.approx(1000 * tokens / case["p50_ms"])
        assert case["intra_op_threads"] in threads
    for each in (writing, *filter(None, [writing["baseline"]])):
        peaks = [case["peak_rss_mb"] for case in each["cases"] if case["intra_op_threads"] == threads[0]]
        assert 0 < peaks[0] <= peaks[-1]
        assert peaks == sorted(peaks)
    if writing["baseline"] is not None:
        check_speedups(writing)


def shapes_of(record):
    return [(case["step"], case["batch"], case["context"]) for case in record["generation"]["cases"]]


def test_a_decoder_is_timed_while_it_writes(output, tmp_path, capsys):
    decoder = write_decoder_folder(tmp_path / "decoder")
    benchmark.main(command_line("q4", decoder, decoder, output, "--threads", "1", "2", *STEPS))
    record = json.loads(output.read_text())
    check_sound(record)
    check_steps(record, threads=[1, 2])
    steps = [("first_token", 1, 4), ("next_token", 1, 6), ("first_token", 1, 30), ("next_token", 2, 6)]
    assert shapes_of(record) == steps * 2
    assert [case["intra_op_threads"] for case in record["generation"]["cases"]] == [1] * 4 + [2] * 4
    (left_out,) = record["generation"]["left_out"]
    assert left_out == {
        "step": "first_token",
        "batch": 1,
        "context": POSITIONS,
        "reason": f"{POSITIONS} tokens and 1 new are more than the {POSITIONS} that the model takes",
    }
    assert record["generation"]["baseline"]["variant"] == "fp32"
    told = [line.partition(" threads=1: p50 ") for line in capsys.readouterr().out.splitlines()]
    assert [subject for subject, rest, _ in told if rest][-4:] == [
        "tiny q4 first token after 1x4",
        "tiny q4 next token after 1x6",
        "tiny q4 first token after 1x30",
        "tiny q4 next token after 2x6",
    ]


def test_what_does_not_write_has_no_such_times(fp32, output):
    benchmark.main(command_line("fp32", fp32, fp32, output, *STEPS))
    assert "generation" not in json.loads(output.read_text())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a tiny gpt2", "story-teller-tiny"])
def test_pytorch_writes_the_same_cases_as_the_graph(output, tmp_path, name):
    source, dtype = EXAMPLES / name, "bfloat16"
    if name == "a tiny gpt2":
        transformers = pytest.importorskip("transformers")
        source, dtype = tmp_path / "source", "float32"
        sizes = {"vocab_size": VOCAB_SIZE, "n_positions": POSITIONS, "n_embd": WIDTH, "n_layer": 2, "n_head": 2}
        transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes)).save_pretrained(source)
    graph = tmp_path / "fp32"
    export.export(name, source, "text-generation", graph, tmp_path / "fp32.json")
    records = {}
    for variant, folder in (("fp32", graph), ("pytorch", source)):
        own = output.with_name(f"{variant}.json")
        benchmark.main(command_line(variant, folder, graph, own, *STEPS, "--load-repeats", "1"))
        records[variant] = json.loads(own.read_text())
        check_sound(records[variant])
        check_steps(records[variant], threads=[1])
    assert shapes_of(records["pytorch"]) == shapes_of(records["fp32"])
    assert len(shapes_of(records["fp32"])) == (4 if name == "a tiny gpt2" else 5)  # which takes 4,096 tokens
    assert records["fp32"]["generation"]["baseline"] is None
    assert records["pytorch"]["generation"]["left_out"] == records["fp32"]["generation"]["left_out"]
    told = [note for note in records["pytorch"]["notes"] if note.startswith("PyTorch computed in bfloat16")]
    assert len(told) == (dtype == "bfloat16")

    prompt = np.arange(3, 15)[None]
    written = []
    for writer in (runtimes.load_onnx(graph, 1).writer, runtimes.load_pytorch(source, "text-generation").writer):
        text = writer.repeat(writer.read(prompt), 2)
        ahead = writer.step(writer.step(text))
        after = writer.cut(ahead, 12)
        tokens = [text.token]
        for _ in range(4):
            after = writer.step(replace(after, token=tokens[-1]))
            tokens.append(after.token)
        np.testing.assert_array_equal(tokens[2], ahead.token)  # what was cut off is written again
        assert after.length == 16
        written.append(np.hstack(tokens).tolist())
    assert written[0][0] == written[0][1]
    assert written[1] == written[0]


def test_a_provider_that_is_not_installed(fp32, output):
    arguments = command_line("int8", fp32, fp32, output, "--providers", "CPUExecutionProvider", "CUDAExecutionProvider")
    with raises(UserError):
        benchmark.main(arguments)
    assert not output.exists()


def test_every_provider_is_compared_with_fp32_on_the_cpu(fp32, output, monkeypatch):
    # The one provider that every build has stands in for another one: what counts is who is compared with whom.
    choose = benchmark.choose_contenders

    def on_the_cpu(arguments, provider):
        contenders = choose(arguments, provider)
        contenders[0].options["provider"] = "CPUExecutionProvider"
        return contenders

    monkeypatch.setattr(benchmark, "choose_contenders", on_the_cpu)
    arguments = command_line("fp32", fp32, fp32, output, "--providers", "CPUExecutionProvider", "CUDAExecutionProvider")
    benchmark.main([*arguments, "--load-repeats", "1"])
    record = json.loads(output.read_text())
    assert record["baseline"] is None
    (other,) = record["other_providers"]
    assert [case["batch"] for case in other["cases"]] == [case["batch"] for case in record["cases"]]
    check_speedups(other)


def test_fp32_is_not_compared_to_itself(fp32, output, capsys):
    benchmark.main(command_line("fp32", fp32, fp32, output))
    record = json.loads(output.read_text())
    check_sound(record)
    assert record["baseline"] is None
    assert all("speedup_vs_fp32" not in case for case in record["cases"])
    assert "x fp32" not in capsys.readouterr().out


def test_more_threads_than_cores_are_noted(fp32, output):
    crowd = (os.cpu_count() or 1) + 1
    benchmark.main(command_line("fp32", fp32, fp32, output, "--threads", str(crowd)))
    record = json.loads(output.read_text())
    assert record["cases"][0]["intra_op_threads"] == crowd
    assert record["notes"][0].startswith(f"{crowd} threads shared")


@pytest.mark.slow
def test_pytorch_classifier(fp32, output, tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=WIDTH,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=POSITIONS,
    )
    transformers.BertForSequenceClassification(config).save_pretrained(tmp_path / "source")
    arguments = command_line("pytorch", tmp_path / "source", fp32, output)
    benchmark.main([*arguments, "--task", "text-classification", "--load-repeats", "1"])
    record = json.loads(output.read_text())
    check_sound(record)
    check_speedups(record)
    assert record["provider"] == "pytorch-cpu"
    assert record["size_mb"] == pytest.approx((tmp_path / "source" / "model.safetensors").stat().st_size / 1e6)
    assert set(record["versions"]) == {"python", "numpy", "onnxruntime", "torch", "transformers"}


def test_pytorch_sentence_model_is_run_with_pooling(tmp_path):
    modules = pytest.importorskip("sentence_transformers.models")
    sentence_transformers = pytest.importorskip("sentence_transformers")
    transformers = pytest.importorskip("transformers")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"word{number}" for number in range(20))]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    config = transformers.BertConfig(
        vocab_size=len(words),
        hidden_size=WIDTH,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=POSITIONS,
    )
    transformers.BertModel(config).save_pretrained(tmp_path / "bert")
    transformers.BertTokenizerFast(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path / "bert")
    sentence_transformers.SentenceTransformer(
        modules=[modules.Transformer(str(tmp_path / "bert")), modules.Pooling(WIDTH), modules.Normalize()],
        device="cpu",
    ).save(str(tmp_path / "source"))

    loaded = runtimes.load_pytorch(tmp_path / "source", "sentence-similarity")
    types = dict.fromkeys(INPUTS, "tensor(int64)")
    features = loaded.prepare(worker.draw_inputs(types, 2, 8, len(words), seed=0))
    outputs = loaded.predict(features)
    embedding = outputs["sentence_embedding"].numpy()
    assert embedding.shape == (2, WIDTH)
    np.testing.assert_allclose(np.linalg.norm(embedding, axis=1), 1, rtol=1e-5)
    assert set(features) == set(INPUTS)  # the timed call leaves its inputs as they were


def test_texts_are_tokenized_padded_and_answered_in_batches(fp32, tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    words = {"[PAD]": 0, "[UNK]": 1} | {f"w{number}": number for number in range(2, 20)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, "[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    texts = ["w2", "w3 w4 w5 w6 w7 w8", "w9 w10"]
    with Worker(Contender("tiny", "fp32", "onnx", fp32), threads=1) as worker:
        types = worker.loaded["input_types"]
        settings = {"tokenizer": str(tmp_path / "tokenizer.json"), "most_tokens": 4, "input_types": types}
        worker.ask("prepare_texts", texts=texts, batch_size=2, **settings)
        assert len(worker.ask("run", iterations=3)["samples_ms"]) == 3
        together = worker.ask("answer", output="logits")["rows"]
        worker.ask("prepare_texts", texts=texts, batch_size=1, **settings)
        alone = worker.ask("answer", output="logits")["rows"]
    session = onnxruntime.InferenceSession(fp32 / "model.onnx", providers=["CPUExecutionProvider"])
    ids = np.array([[3, 4, 5, 6]])  # the second text, cut at four tokens
    (expected,) = session.run(None, {"input_ids": ids, "attention_mask": ids * 0 + 1, "token_type_ids": ids * 0})
    np.testing.assert_allclose(alone[1], expected[0], rtol=1e-5)
    assert np.shape(together) == np.shape(alone) == (3, LABELS)
    np.testing.assert_allclose(together[1:], alone[1:], rtol=1e-5)
    assert not np.allclose(together[0], alone[0])  # this model lets padding into its answer


def test_a_worker_imports_nothing_it_does_not_measure():
    script = "import sys, onnxproof.benchmark.worker; print(*sys.modules)"
    environment = timing.worker_environment(1)
    imported = subprocess.check_output([sys.executable, "-P", "-c", script], env=environment, text=True).split()
    assert {"numpy"} <= set(imported)
    assert not {"torch", "transformers", "optimum", "onnx", "psutil", "onnxruntime"} & set(imported)


def test_a_broken_model_is_one_clear_error(fp32, output, tmp_path):
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "model.onnx").write_bytes(b"not a model")
    with raises(UserError):
        benchmark.main(command_line("int8", broken, fp32, output))
    assert not output.parent.exists()


def test_a_failing_call_is_one_clear_error(fp32, output, tmp_path):
    # The configuration promises more tokens than the table holds: the graph fails when it runs.
    folder = write_onnx_folder(tmp_path / "lying")
    (folder / "config.json").write_text(json.dumps(CONFIG | {"vocab_size": 10**6}))
    with raises(UserError):
        benchmark.main(command_line("fp32", folder, folder, output))
    assert not output.parent.exists()


def test_a_dying_worker_is_one_clear_error(fp32):
    with Worker(Contender("tiny", "int8", "onnx", fp32), threads=1) as worker:
        psutil.Process(worker.process.pid).kill()
        with raises(UserError):
            worker.ask("memory")


def test_library_chatter_does_not_reach_the_answers(fp32, monkeypatch, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import builtins, sys\n"
        "real = builtins.__import__\n"
        "def chatty(name, *arguments, **options):\n"
        "    if name == 'onnxruntime': print('a library says hello')\n"
        "    return real(name, *arguments, **options)\n"
        "builtins.__import__ = chatty\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with Worker(Contender("tiny", "int8", "onnx", fp32), threads=1) as worker:
        assert worker.ask("memory")["peak_rss_mb"] > 0
        worker.stderr.seek(0)
        assert b"a library says hello" in worker.stderr.read()


def test_an_input_it_cannot_fill(fp32, output, tmp_path):
    folder = write_onnx_folder(tmp_path / "odd", inputs=("input_ids", "bbox"))
    with raises(UserError):
        benchmark.main(command_line("int8", folder, fp32, output))
    assert not output.parent.exists()


def test_too_long_a_sequence_is_refused_before_any_work(fp32, output, monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", lambda *arguments, **options: pytest.fail("a process started"))
    with raises(UserError):
        benchmark.main(command_line("int8", fp32, fp32, output, "--sequence-lengths", str(POSITIONS + 1)))
    assert not output.parent.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_stopping_the_script_stops_its_workers(fp32, output, stop):
    arguments = command_line("int8", fp32, fp32, output, "--rounds", "100000")
    script = [sys.executable, benchmark.__file__, *arguments]
    with subprocess.Popen(script, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        workers = wait_for_workers(process, count=2)
        process.send_signal(stop)
        assert process.wait(60) != 0
    _, alive = psutil.wait_procs(workers, timeout=60)
    assert alive == []
    assert not output.parent.exists()


def wait_for_workers(process, count):
    """Return the script's children once ``count`` run at once: then the timing has begun or is about to."""
    while process.poll() is None:
        children = psutil.Process(process.pid).children()
        if len(children) >= count:
            return children
        time.sleep(0.02)
    pytest.fail("the script ended before its workers were seen")


def test_script_reports_an_error_in_one_line(tmp_path, output):
    script = [sys.executable, benchmark.__file__, *command_line("int8", tmp_path, tmp_path, output)]
    result = subprocess.run(script, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    expected = f"error: model tiny, variant int8: {Path(tmp_path) / 'model.onnx'}: no such file\n"
    assert result.stderr == expected
