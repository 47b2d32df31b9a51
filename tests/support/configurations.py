"""Small configurations, and what their check tells about them."""

from pathlib import Path

import pytest

from onnxproof.config.checks import check_config
from onnxproof.config.problem import ConfigError

COMMIT = "0123456789abcdef0123456789abcdef01234567"
HUB = {"hub": "owner/name", "revision": COMMIT}


def one(source=None, **settings):
    """Return a configuration with one model, X."""
    return {"models": {"X": {"source": HUB if source is None else source, **settings}}}


def told_problems(config, folder="."):
    """Return the sentences with which a configuration is refused."""
    with pytest.raises(ConfigError) as caught:
        check_config(config, Path(folder))
    text = str(caught.value)
    if "\n" not in text:
        return [text.removeprefix("the configuration has a problem: ")]
    head, *lines = text.split("\n")
    assert head == f"the configuration has {len(lines)} problems:"
    return [line.removeprefix("  ") for line in lines]


def told_problem(config, folder="."):
    """Return the one sentence with which a configuration is refused."""
    (problem,) = told_problems(config, folder)
    return problem
