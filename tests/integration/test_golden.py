"""The default models' ONNX files, byte for byte as recorded."""

import json

import pytest

from reproduction import GOLDEN, golden_problem, make_golden


@pytest.mark.slow
def test_the_default_models_have_the_recorded_bytes(tmp_path):
    problem = golden_problem(make_golden(tmp_path), json.loads(GOLDEN.read_text()))
    assert problem is None, problem
