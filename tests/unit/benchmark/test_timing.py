"""The benchmark's arithmetic, its checks before anything runs, and what it reads of the machine."""

import contextlib
import json
import mmap
import os
from pathlib import Path

import numpy as np
import pytest

import benchmark
from messages import raises
from onnxproof import cpu, hardware
from onnxproof.benchmark import runtimes, timing, worker
from onnxproof.benchmark.runtimes import Seeing
from onnxproof.benchmark.timing import Case, Contender, ModelSizes
from onnxproof.cli import UserError

ARGUMENTS = ["--model", "m", "--contender", "c", "--baseline", "b", "--output", "o.json"]


def write_config(folder, **config):
    (folder / "config.json").write_text(json.dumps(config))
    return folder / "config.json"


def test_summarize_known_samples():
    # 1 … 100 ms over two rounds: linear interpolation puts p50 midway between 50 and 51.
    rounds = [[float(time) for time in range(1, 51)], [float(time) for time in range(51, 101)]]
    summary = timing.summarize(8, rounds)
    assert summary["p50_ms"] == pytest.approx(50.5)
    assert summary["p90_ms"] == pytest.approx(90.1)
    assert summary["p99_ms"] == pytest.approx(99.01)
    assert summary["items_per_s"] == pytest.approx(8 / 0.0505)
    assert summary["iterations"] == 100


def test_compare_takes_the_median_of_the_rounds_ratios():
    ours = [[1.0, 1.0, 9.0], [2.0, 2.0, 2.0], [1.0, 1.0, 1.0]]
    baseline = [[2.0, 2.0, 2.0], [8.0, 8.0, 8.0], [3.0, 3.0, 90.0]]
    comparison = timing.compare(ours, baseline)
    assert comparison["speedup_vs_fp32"] == pytest.approx(3.0)
    assert comparison["speedup_iqr"] == pytest.approx([2.5, 3.5])


def test_compare_is_untouched_by_a_slow_spell_both_feel():
    quiet = timing.compare([[1.0], [1.0], [1.0]], [[2.0], [2.0], [2.0]])
    busy = timing.compare([[1.0], [3.5], [3.5]], [[2.0], [7.0], [7.0]])
    assert busy == quiet


def test_a_slow_case_ends_after_three_rounds():
    class Slow:
        def ask(self, command, iterations):
            return {"samples_ms": [1.0] * iterations}

    effort = timing.Effort(warmup=0, rounds=50, iterations=1, seconds_per_case=-1, seed=0)
    assert len(timing.time_in_turns([Slow()], effort)[0]) == 3


def test_time_in_turns_alternates_the_order():
    log = []

    class Recorder:
        def __init__(self, name):
            self.name = name

        def ask(self, command, iterations):
            log.append((self.name, command, iterations))
            return {"samples_ms": [float(len(log))] * iterations}

    effort = timing.Effort(warmup=7, rounds=3, iterations=2, seconds_per_case=60, seed=0)
    samples = timing.time_in_turns([Recorder("a"), Recorder("b")], effort)
    assert [(name, iterations) for name, _, iterations in log] == [
        ("a", 7), ("b", 7), ("a", 2), ("b", 2), ("b", 2), ("a", 2), ("a", 2), ("b", 2),
    ]  # fmt: skip
    assert samples == [[[3.0, 3.0], [6.0, 6.0], [7.0, 7.0]], [[4.0, 4.0], [5.0, 5.0], [8.0, 8.0]]]


def test_draw_inputs_is_seeded_and_typed():
    types = {"attention_mask": "tensor(int32)", "input_ids": "tensor(int64)"}
    first = worker.draw_inputs(types, 3, 50, 30522, seed=1)
    again = worker.draw_inputs(types, 3, 50, 30522, seed=1)
    other = worker.draw_inputs(types, 3, 50, 30522, seed=2)
    assert set(first) == set(types)
    assert first["input_ids"].shape == (3, 50)
    assert first["input_ids"].dtype == np.int64
    assert first["attention_mask"].dtype == np.int32
    assert first["attention_mask"].all()
    assert first["input_ids"].min() >= 1000
    np.testing.assert_array_equal(first["input_ids"], again["input_ids"])
    assert (first["input_ids"] != other["input_ids"]).any()


@pytest.mark.parametrize("vocab_size", [1, 7, 999, 1000, 1001, 2000])
def test_draw_inputs_stays_in_any_vocabulary(vocab_size):
    ids = worker.draw_inputs({"input_ids": "tensor(int64)"}, 4, 64, vocab_size, seed=0)["input_ids"]
    assert ids.min() >= 0
    assert ids.max() < vocab_size


@pytest.mark.parametrize(
    ("config", "limit"),
    [
        ({"model_type": "bert", "max_position_embeddings": 512, "pad_token_id": 0}, 512),
        ({"model_type": "xlm-roberta", "max_position_embeddings": 514, "pad_token_id": 1}, 512),
        ({"model_type": "mpnet", "max_position_embeddings": 514, "pad_token_id": 1}, 512),
        ({"model_type": "t5"}, None),
    ],
)
def test_longest_input(tmp_path, config, limit):
    sizes = timing.read_model_sizes(write_config(tmp_path, vocab_size=100, **config))
    assert sizes == ModelSizes(100, limit)


def test_config_without_a_vocabulary_is_refused(tmp_path):
    with raises(UserError):
        timing.read_model_sizes(write_config(tmp_path, model_type="bert"))


@pytest.mark.parametrize(
    ("config", "settings", "items"),
    [
        ({"model_type": "vit", "image_size": 96}, {}, {"pixel_values": (3, 96, 96), "pixel_mask": (96, 96)}),
        (
            {"model_type": "resnet"},
            {"do_center_crop": True, "crop_size": 40, "size": {"shortest_edge": 64}},
            {"pixel_values": (3, 40, 40), "pixel_mask": (40, 40)},
        ),
        (
            {"model_type": "segformer", "num_channels": 1},
            {"size": {"height": 48, "width": 64}},
            {"pixel_values": (1, 48, 64), "pixel_mask": (48, 64)},
        ),
        (
            {"model_type": "wav2vec2"},
            {"sampling_rate": 8000},
            {"input_values": (16000,), "attention_mask": (16000,)},
        ),
        (
            {"model_type": "speech_to_text", "input_feat_per_channel": 40},
            {},
            {"input_features": (200, 40), "attention_mask": (200,)},
        ),
        (
            {"model_type": "pix2struct"},
            {"max_patches": 64, "patch_size": {"height": 8, "width": 4}},
            {"flattened_patches": (64, 2 + 8 * 4 * 3), "attention_mask": (64,)},
        ),
        (
            {"model_type": "audio-spectrogram-transformer", "num_mel_bins": 32, "max_length": 64},
            {},
            {"input_values": (64, 32)},
        ),
        (
            {"model_type": "whisper", "num_mel_bins": 80, "max_source_positions": 1500},
            {},
            {"input_features": (80, 3000)},
        ),
    ],
)
def test_sizes_of_images_and_sounds(tmp_path, config, settings, items):
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    sizes = timing.read_model_sizes(write_config(tmp_path, **config))
    assert sizes.items == items
    assert timing.choose_cases(sizes, [1, 4], [16, 128]) == [Case(1, None), Case(4, None)]
    shapes = {name: shape for name, shape in items.items() if not name.endswith("mask")}
    drawn = worker.draw_inputs(dict.fromkeys(shapes, "tensor(float)"), 4, None, 1, 0, item_shapes=items)
    assert {name: values.shape for name, values in drawn.items()} == {name: (4, *shapes[name]) for name in shapes}


def test_a_graph_of_one_image_at_a_time_is_timed_on_one(tmp_path):
    config = {"model_type": "owlvit", "text_config": {"vocab_size": 100}, "vision_config": {"image_size": 32}}
    sizes = timing.read_model_sizes(write_config(tmp_path, **config))
    assert timing.choose_cases(sizes, [1, 4], [16]) == [Case(1, None)]


WRITERS = {
    "llava": (
        {"size": {"shortest_edge": 16}, "crop_size": {"height": 16, "width": 16}},
        {"pixel_values": (3, 16, 16)},
        {"pixel_values": (2, 3, 16, 16)},
    ),
    "smolvlm": (
        {"size": {"longest_edge": 64}, "max_image_size": {"longest_edge": 16}},
        {"pixel_values": (1, 3, 16, 16), "pixel_attention_mask": (1, 16, 16)},
        {"pixel_values": (2, 1, 3, 16, 16), "pixel_attention_mask": (2, 1, 16, 16)},
    ),
    "qwen2_vl": (
        {"patch_size": 4, "merge_size": 2, "temporal_patch_size": 2, "min_pixels": 64, "max_pixels": 256},
        {"pixel_values": (16, 96), "image_grid_thw": (3,)},
        {"pixel_values": (32, 96), "image_grid_thw": (2, 3)},
    ),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_prompts_of_writers_about_images_have_an_image_each(tmp_path, kind):
    settings, items, shapes = WRITERS[kind]
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    sizes = timing.read_model_sizes(write_config(tmp_path, model_type=kind, text_config={"vocab_size": 50}))
    assert (sizes.vocab_size, sizes.items) == (50, items)
    assert timing.choose_cases(sizes, [1, 2], [8]) == [Case(1, 8), Case(2, 8)]
    types = dict.fromkeys(("input_ids", "attention_mask", "position_ids", "image_grid_thw"), "tensor(int64)")
    types = {name: kind for name, kind in types.items() if name != "image_grid_thw" or name in items}
    types |= {"pixel_values": "tensor(float)"}
    types |= {"pixel_attention_mask": "tensor(bool)"} if "pixel_attention_mask" in items else {}
    drawn = worker.draw_inputs(types, 2, 8, 50, 0, item_shapes=items)
    feed = worker.add_images(drawn, Seeing(99, lambda _: 8))
    assert {name: feed[name].shape for name in shapes} == shapes
    assert feed["input_ids"].shape == feed["attention_mask"].shape == (2, 12)
    assert (feed["input_ids"] == 99).sum(axis=1).tolist() == [4, 4]
    if kind == "qwen2_vl":
        assert feed["image_grid_thw"].tolist() == [[1, 4, 4]] * 2
        assert feed["position_ids"][:, 1].tolist() == [
            [0, 0, 0, 0, *range(2, 10)],
            [0, 0, 1, 1, *range(2, 10)],
            [0, 1, 0, 1, *range(2, 10)],
        ]
    else:
        assert feed["position_ids"].tolist() == [list(range(12))] * 2


def test_vocabulary_that_a_writer_about_images_leaves_to_its_type_is_taken_for_its_least(tmp_path):
    path = write_config(tmp_path, model_type="gemma3", text_config={"hidden_size": 8}, vision_config={"image_size": 16})
    assert timing.read_model_sizes(path).vocab_size == timing.LEAST_VOCABULARY


def test_texts_beside_images_and_choices_have_their_own_shapes():
    types = {"input_ids": "tensor(int64)", "pixel_values": "tensor(float)"}
    drawn = worker.draw_inputs(types, 8, None, 50, 0, item_shapes={"pixel_values": (3, 5, 5)})
    assert (drawn["input_ids"].shape, drawn["pixel_values"].shape) == ((4, 16), (8, 3, 5, 5))
    choices = worker.draw_inputs({"input_ids": "tensor(int64)"}, 2, 7, 50, 0, {"input_ids": 3})
    assert choices["input_ids"].shape == (2, 4, 7)


def test_too_long_a_sequence_is_refused():
    model = ModelSizes(100, 128)
    timing.check_cases("tiny", model, [Case(8, 128)])
    with raises(UserError):
        timing.check_cases("tiny", model, [Case(1, 16), Case(2, 129)])


@pytest.mark.parametrize(
    "types",
    [
        {"bbox": "tensor(float)"},
        {"input_ids": "tensor(string)"},
    ],
)
def test_unknown_inputs_are_refused(tmp_path, types):
    contender = Contender("tiny", "int8", "onnx", tmp_path)
    with raises(UserError):
        timing.check_inputs(contender, types)


def test_size_of_an_onnx_model_counts_its_external_data(tmp_path):
    for name, size in [("model.onnx", 1_000_000), ("model.onnx_data", 2_500_000), ("tokenizer.json", 999)]:
        (tmp_path / name).write_bytes(b"x" * size)
    files = timing.model_files(Contender("tiny", "fp32", "onnx", tmp_path))
    assert timing.size_mb(files) == pytest.approx(3.5)


def test_size_of_a_model_of_llama_cpp_is_that_of_its_file(tmp_path):
    for name in ("model.gguf", "config.json"):
        (tmp_path / name).write_bytes(b"x" * 1_500_000)
    files = timing.model_files(Contender("tiny", "llama.cpp Q8_0", "llama", tmp_path))
    assert timing.size_mb(files) == pytest.approx(1.5)


def test_size_of_a_checkpoint_counts_each_weight_once(tmp_path):
    dense = tmp_path / "2_Dense"
    dense.mkdir()
    for path in (tmp_path / "model.safetensors", tmp_path / "pytorch_model.bin", dense / "pytorch_model.bin"):
        path.write_bytes(b"x")
    (tmp_path / "training_args.bin").write_bytes(b"x")
    files = timing.model_files(Contender("tiny", "pytorch", "pytorch", tmp_path))
    assert files == [tmp_path / "model.safetensors", dense / "pytorch_model.bin"]


@pytest.mark.parametrize(
    "runtime",
    [
        "onnx",
        "pytorch",
    ],
)
def test_missing_model_files(tmp_path, runtime):
    with raises(UserError):
        timing.model_files(Contender("tiny", "x", runtime, tmp_path))


def test_peak_memory_is_this_process_s_and_in_megabytes():
    # Mapped by itself: a job that ran in this process before may have told malloc to keep what is freed.
    block = mmap.mmap(-1, 60_000_000)
    block.write(bytes(60_000_000))
    resident = runtimes.current_rss_mb()
    block.close()
    assert 60 < resident < 2000
    # The freed block still counts; the kernel's counters lag behind by a little.
    assert runtimes.peak_rss_mb() > resident - 5
    assert runtimes.current_rss_mb() < resident - 50


def test_come_to_rest_waits_for_spinning_threads(monkeypatch):
    cpu_times = iter([0.0, 0.02, 0.02, 0.04, 0.04, 0.04, 9.0])  # two busy windows, then a quiet one
    monkeypatch.setattr(worker.time, "process_time", lambda: next(cpu_times))
    monkeypatch.setattr(worker, "REST_WINDOW_S", 0.001)
    worker.come_to_rest()
    assert list(cpu_times) == [9.0]


def test_parse_cpuinfo_x86():
    text = (
        "processor\t: 0\nmodel name\t: Some CPU @ 2GHz\nflags\t\t: fpu avx2 avx512_vnni fma sse\n\n"
        "processor\t: 1\nmodel name\t: Other\n"
    )
    assert cpu.parse_cpuinfo(text) == ("Some CPU @ 2GHz", ["avx2", "avx512_vnni", "fma"])


def test_parse_cpuinfo_arm():
    text = "processor\t: 0\nFeatures\t: fp asimd evtstrm asimddp i8mm\n"
    assert cpu.parse_cpuinfo(text) == (None, ["asimd", "asimddp", "i8mm"])


def test_cpu_description_without_cpuinfo(tmp_path, monkeypatch):
    monkeypatch.setattr(cpu, "CPUINFO", tmp_path / "absent")
    description = hardware.cpu_description()
    assert description["flags"] == []
    assert description["model"]
    assert description["logical_cores"] == os.cpu_count()


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity on this system")
@pytest.mark.parametrize(("granted", "threads"), [("3", 3), ("0", 7), ("many", 7), (None, 7)])
def test_a_job_computes_with_the_threads_that_it_was_granted(monkeypatch, granted, threads):
    monkeypatch.setattr(hardware, "available_cores", lambda: 7)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if granted is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", granted)
    assert hardware.granted_threads() == threads


def test_available_cores_respects_affinity():
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert hardware.available_cores() == 1
    finally:
        os.sched_setaffinity(0, allowed)


def test_crowding_is_noted():
    assert benchmark.crowding_notes([1, 2], cores=2) == []
    (note,) = benchmark.crowding_notes([1, 2, 4], cores=2)
    assert note.startswith("4 threads shared 2 available cores")


def test_arguments_are_parsed():
    arguments = benchmark.parse_arguments(
        [
            *ARGUMENTS,
            "--variant",
            "int8",
            "--batch-sizes",
            "1",
            "8",
            "--sequence-lengths",
            "16",
            "--threads",
            "1",
            "2",
        ]
    )
    assert (arguments.batch_sizes, arguments.sequence_lengths, arguments.threads) == ([1, 8], [16], [1, 2])
    assert [contender.variant for contender in benchmark.choose_contenders(arguments, benchmark.CPU_PROVIDER)] == [
        "int8",
        "fp32",
    ]


def test_fp32_has_no_second_contender():
    arguments = benchmark.parse_arguments([*ARGUMENTS, "--variant", "fp32"])
    assert [contender.variant for contender in benchmark.choose_contenders(arguments, benchmark.CPU_PROVIDER)] == [
        "fp32"
    ]


def test_fp32_elsewhere_is_compared_with_fp32_on_the_cpu():
    arguments = benchmark.parse_arguments([*ARGUMENTS, "--variant", "fp32"])
    elsewhere, baseline = benchmark.choose_contenders(arguments, "CUDAExecutionProvider")
    assert elsewhere.options == {"provider": "CUDAExecutionProvider"}
    assert (baseline.variant, baseline.options) == ("fp32", {})


def test_the_task_of_pytorch_is_read_from_the_snapshot(tmp_path):
    (tmp_path / "config.json").write_text('{"architectures": ["BertForSequenceClassification"]}')
    arguments = benchmark.parse_arguments([*ARGUMENTS, "--variant", "pytorch", "--contender", str(tmp_path)])
    assert benchmark.choose_contenders(arguments, benchmark.CPU_PROVIDER)[0].task == "text-classification"
    arguments.task = "sentence-similarity"
    with raises(UserError):
        benchmark.choose_contenders(arguments, benchmark.CPU_PROVIDER)


@pytest.mark.parametrize("option", ["--rounds", "--iterations", "--threads", "--batch-sizes", "--load-repeats"])
def test_counts_are_at_least_one(option, capsys):
    with pytest.raises(SystemExit):
        benchmark.parse_arguments([*ARGUMENTS, "--variant", "int8", option, "0"])
    assert "0 is not at least 1" in capsys.readouterr().err


def test_processes_start_together_and_load_one_after_the_other(monkeypatch):
    events = []

    class Told:
        def __init__(self, contender, threads):
            events.append("starts")
            self.loaded = {"load_ms": float(len(events))}

        def ask(self, command):
            events.append(command)

        def kill(self):
            events.append("is killed")

        def __enter__(self):
            events.append("loads")
            return self

        def __exit__(self, *_):
            events.append("ends")

    monkeypatch.setattr(timing, "Worker", Told)
    assert timing.sample_loading(Contender("m", "int8", "onnx", Path("none")), 1, 2) == [1.0, 2.0]
    assert events == [*["starts"] * 2, *["memory"] * 2, *["loads", "ends"] * 2, *["is killed"] * 2]


def test_a_worker_that_nobody_enters_is_killed():
    with contextlib.ExitStack() as stack:
        [worker] = timing.start_workers([Contender("m", "int8", "onnx", Path("none"))], 1, stack)
        assert worker.process.poll() is None
    assert worker.process.returncode is not None
