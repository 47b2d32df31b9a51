import json
import subprocess
import sys

import numpy as np
import pytest
from onnx import helper

from graphs import FLOAT, INT64, build, op_types, same_structure
from messages import raises
from onnxproof.cli import UserError
from onnxproof.places import SCRIPTS
from onnxproof.quantization.recipe import apply_recipe, check_recipe

RECIPE = [{"pass": "embedding_rows"}, {"pass": "dynamic_matmul", "weight_range": "pair_safe", "exclude": []}]


def embed_and_project():
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["h"]),
        helper.make_node("MatMul", ["h", "w"], ["y"]),
    ]
    constants = {
        "table": rng.normal(size=(300, 8)).astype(np.float32),
        "w": rng.normal(size=(8, 3)).astype(np.float32),
    }
    return build(nodes, {"ids": (INT64, ["n"])}, {"y": (FLOAT, ["n", 3])}, constants)


def test_a_recipe_survives_json_and_gives_the_same_bytes_twice():
    first = apply_recipe(embed_and_project(), RECIPE)
    second = apply_recipe(embed_and_project(), json.loads(json.dumps(RECIPE)))

    assert same_structure(first, second)
    assert op_types(first)[:4] == ["Gather", "Cast", "Gather", "Mul"]
    assert "MatMulInteger" in op_types(first)


def test_the_model_given_is_left_as_it_was():
    model = embed_and_project()
    apply_recipe(model, RECIPE)
    assert same_structure(model, embed_and_project())


@pytest.mark.parametrize(
    "recipe",
    [
        [{"pass": "embeding_rows"}],
        [{"minimum_rows": 3}],
        [{"pass": "embedding_rows"}, {"pass": "dynamic_matmul", "per_chanel": True}],
        [{"pass": "dynamic_matmul", "weight_range": "wide"}],
    ],
)
def test_a_wrong_recipe_is_one_clear_error(recipe):
    with raises(UserError):
        apply_recipe(embed_and_project(), recipe)


def test_checking_needs_no_model():
    check_recipe(RECIPE)


def test_a_search_does_not_wait_for_a_library_that_no_recipe_uses():
    code = "import sys, quantize; sys.exit('onnx_ir' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=SCRIPTS, check=True, timeout=120)
