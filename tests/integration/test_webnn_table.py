"""The table of WebNN beside the list that onnxruntime-web's package has of it."""

import re

import pytest

from onnxproof.graph.providers import read_provider
from onnxproof.parity.browser import find_packages

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def test_webnns_table_is_onnxruntime_webs_list(node_modules):
    listed = (find_packages(node_modules)[1] / "docs" / "webnn-operators.md").read_text()
    rows = re.findall(r"^\| (\w+) ?\| ([^|]*)\|", listed, re.MULTILINE)
    expected = {
        f"{domain}:{name}" for name, cell in rows for domain in re.findall(r"(ai\.onnx|com\.microsoft)\(", cell)
    }
    assert len(expected) > 90
    assert read_provider("webnn").operators == expected
