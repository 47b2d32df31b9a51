"""What jobs are said to need, against what they were measured to need."""

import json
import os

import pytest
from huggingface_hub import constants
from huggingface_hub.utils import close_session

from hub_server import HubServer
from onnxproof.engine import resources
from onnxproof.engine.resources import (
    DEFAULT_WEIGHTS_MB,
    MEASURED,
    MEASURED_SECONDS,
    MEMORY,
    REMOTE_JOB_MB,
    SECONDS,
    SEVERAL_WHOLE_MB,
    SINGLE_FILE_MB,
    WHOLE_MB,
    estimate_cpu_minutes,
    estimate_disk_mb,
    estimate_memory_mb,
    estimate_minutes,
    estimate_threads,
    weights_mb,
)
from onnxproof.graph.external_data import BY_REFERENCE_BYTES, SINGLE_FILE_BYTES, WHOLE_BELOW

HUB = {"hub": "org/name"}
POINTS = [(rule, weights, peak) for rule, points in MEASURED.items() for weights, peak in points.items()]


@pytest.mark.parametrize(("rule", "weights", "peak"), POINTS)
def test_the_estimate_is_within_half_of_what_was_measured(rule, weights, peak):
    assert peak <= estimate_memory_mb(rule, weights) <= 1.5 * peak


def test_the_lines_meet_where_models_are_handled_differently():
    assert pytest.approx(BY_REFERENCE_BYTES / 1e6, abs=1) == WHOLE_MB
    assert pytest.approx(WHOLE_BELOW / 1e6, abs=1) == SEVERAL_WHOLE_MB
    assert pytest.approx(SINGLE_FILE_BYTES / 1e6, abs=1) == SINGLE_FILE_MB
    assert MEASURED.keys() <= MEMORY.keys()


@pytest.mark.parametrize(
    ("rule", "weights", "seconds"),
    [(rule, weights, seconds) for rule, points in MEASURED_SECONDS.items() for weights, seconds in points.items()],
)
def test_the_estimated_time_is_near_what_was_measured(rule, weights, seconds):
    assert SECONDS[rule].at(weights) / 2 <= seconds <= SECONDS[rule].at(weights) * 2


def test_the_time_of_a_chain_counts_variants_and_cases():
    settings = {"batch_sizes": [1, 8], "sequence_lengths": [16], "threads": [1], "seconds_per_case": 10}
    settings["pytorch"] = True
    short = estimate_cpu_minutes(90.9, ["fp32"], settings)
    assert estimate_cpu_minutes(90.9, ["fp32"], settings | {"threads": [1, 2]}) > short + 0.5
    assert estimate_cpu_minutes(90.9, ["fp32", "optimized", "int8"], settings) > short + 0.5
    assert estimate_cpu_minutes(438.0, ["fp32"], settings) > short + 0.5
    assert estimate_cpu_minutes(90.9, ["fp32"], settings | {"pytorch": False}) < short


def test_each_attempt_gets_more_memory_and_time():
    assert [estimate_memory_mb("publish", 0, attempt) for attempt in (1, 2, 3)] == [400, 600, 800]
    assert estimate_memory_mb("export", 500, 2) == pytest.approx(1.5 * estimate_memory_mb("export", 500), abs=1)
    assert estimate_minutes("export", 500, 2) == 2 * estimate_minutes("export", 500)
    assert estimate_disk_mb("export", 500) > 1000


def test_only_large_models_get_a_second_thread():
    sizes = (1, 90.9, 438, 2234)
    assert [estimate_threads(size, cores=4) for size in sizes] == [1, 1, 2, 2]
    assert [estimate_threads(size, cores=2) for size in sizes] == [1, 1, 1, 2]


def test_a_job_on_another_machine_gets_what_snakemake_itself_takes_there():
    for attempt in (1, 2):
        here, there = (estimate_memory_mb("export", 500, attempt, remote) for remote in (False, True))
        assert there - here == REMOTE_JOB_MB


@pytest.fixture
def results(tmp_path):
    (tmp_path / "m" / "source").mkdir(parents=True)
    files = {
        "model-00001-of-00002.safetensors": 300_000_000,
        "1_Dense/model.safetensors": 50_000_000,
        "tokenizer.json": 20_000_000,
    }
    manifest = {"files": {name: {"size": size, "sha256": ""} for name, size in files.items()}}
    (tmp_path / "m" / "source.json").write_text(json.dumps(manifest))
    return tmp_path


def test_the_size_comes_from_the_snapshots_manifest(results):
    assert weights_mb("m", HUB, results) == 350
    assert weights_mb("unknown", HUB, results) == DEFAULT_WEIGHTS_MB


@pytest.fixture
def folder(tmp_path):
    """A model's folder with 3 MB of weights, and others that no snapshot of it would hold."""
    folder = tmp_path / "model"
    for name, size in {
        "model.safetensors": 2_000_000,
        "2_Dense/model.safetensors": 1_000_000,
        "pytorch_model.bin": 7_000_000,
        "onnx/model.safetensors": 7_000_000,
        "tokenizer.json": 7_000_000,
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(bytes(size))
    return folder


def test_without_a_manifest_a_local_source_tells_the_size_and_is_looked_at_once(folder, tmp_path, monkeypatch):
    source = {"path": str(folder)}
    assert weights_mb("unknown", source, tmp_path) == 3
    monkeypatch.setattr("onnxproof.checkpoint.snapshot.needed_files", lambda names: pytest.fail("was looked at twice"))
    assert weights_mb("unknown", source, tmp_path) == 3


def test_a_manifest_goes_before_a_local_source(folder, results):
    assert weights_mb("m", {"path": str(folder)}, results) == 350


def test_a_local_source_of_sixteen_bits_takes_twice_as_much(folder, tmp_path):
    (folder / "config.json").write_text('{"dtype": "float16"}')
    assert weights_mb("unknown", {"path": str(folder)}, tmp_path) == 6


def test_an_installed_package_tells_the_size(folder, tmp_path, monkeypatch):
    info = tmp_path / "a_model-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: a-model\nVersion: 1.0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert weights_mb("unknown", {"package": "a-model", "path": "model"}, tmp_path) == 3


@pytest.mark.parametrize("source", [{"path": "no/such/folder"}, {"package": "no-such-package", "path": "model"}])
def test_a_source_that_is_not_here_is_no_reason_to_stop_the_plan(source, tmp_path):
    assert weights_mb("unknown", source, tmp_path) == DEFAULT_WEIGHTS_MB


@pytest.fixture
def hub(folder, monkeypatch):
    with HubServer() as hub:
        hub.add("org/plain", folder, "1" * 40)
        hub.add("org/halves", folder, "2" * 40, parameters={"BF16": 1_500_000})
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        close_session()  # a session keeps to what was set when it was made
        yield hub
        resources._hub_mb.cache_clear()


@pytest.mark.parametrize(("repo", "megabytes"), [("org/plain", 3), ("org/halves", 6), ("org/none", DEFAULT_WEIGHTS_MB)])
def test_the_hub_tells_the_size_where_it_is_asked_and_is_asked_once(hub, tmp_path, repo, megabytes):
    assert weights_mb("unknown", {"hub": repo}, tmp_path) == DEFAULT_WEIGHTS_MB
    assert not hub.requests
    for _ in range(2):
        assert weights_mb("unknown", {"hub": repo}, tmp_path, ask_hub=True) == megabytes
    assert len(hub.requests) == 1


def test_without_the_hub_a_plan_goes_on(hub, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert weights_mb("unknown", {"hub": "org/plain"}, tmp_path, ask_hub=True) == DEFAULT_WEIGHTS_MB


def test_weights_of_sixteen_bits_take_twice_as_much_in_float32(results):
    (results / "m" / "source" / "config.json").write_text('{"torch_dtype": "bfloat16"}')
    assert weights_mb("m", HUB, results) == 700


def test_a_manifest_is_read_again_only_when_it_changes(results, monkeypatch):
    manifest = results / "m" / "source.json"
    assert weights_mb("m", HUB, results) == 350
    monkeypatch.setattr(resources.json, "loads", lambda text: pytest.fail("was read twice"))
    assert weights_mb("m", HUB, results) == 350
    monkeypatch.undo()
    manifest.write_text('{"files": {"model.safetensors": {"size": 1000000, "sha256": ""}}}')
    os.utime(manifest, ns=(1, 1))
    assert weights_mb("m", HUB, results) == 1


@pytest.mark.parametrize("content", ["", "[]", '{"files": []}', '{"files": {"a.bin": {}}}'])
def test_a_broken_manifest_is_no_reason_to_stop_the_plan(results, content):
    (results / "m" / "source.json").write_text(content)
    assert weights_mb("m", HUB, results) == DEFAULT_WEIGHTS_MB
