import json
import math
import re
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import helper

import onnxproof.quantization.search.ladder as search_module
from graphs import FLOAT, INT64, build, op_types
from messages import raises
from onnxproof.cli import UserError
from onnxproof.graph import external_data
from onnxproof.graph.external_data import SINGLE_FILE_BYTES
from onnxproof.inputs.model_inputs import ModelInputs
from onnxproof.quantization.findings import Findings, read_findings, write_findings
from onnxproof.quantization.passes.dynamic_matmul import read_rounded_weights
from onnxproof.quantization.recipe import apply_recipe
from onnxproof.quantization.search import candidates
from onnxproof.quantization.search.candidates import FEWEST_CENTERED, PREPARATIONS, limit_effort
from onnxproof.quantization.search.judge import Judge
from onnxproof.quantization.search.labelled import Examples
from onnxproof.quantization.search.ladder import distances_to, find_recipe
from onnxproof.quantization.search.sensitivity import measure_sensitivity
from onnxproof.vocabulary import QUANTIZED_VARIANTS

WIDTH, CLASSES = 24, 4


def embedder(outlier=1.0, logits=False):
    """ids, mask → embedding → three layers → mean over tokens: a sentence embedding, or logits."""
    rng = np.random.default_rng(0)
    gain = np.ones(WIDTH, dtype=np.float32)
    gain[5] = outlier
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["e"]),
        helper.make_node("MatMul", ["e", "w1"], ["h1"], name="first"),
        helper.make_node("Tanh", ["h1"], ["t1"]),
        helper.make_node("Mul", ["t1", "gain"], ["g1"]),
        helper.make_node("MatMul", ["g1", "w2"], ["h2"], name="second"),
        helper.make_node("Tanh", ["h2"], ["t2"]),
        helper.make_node("MatMul", ["t2", "w3"], ["h3"], name="third"),
        helper.make_node("Cast", ["attention_mask"], ["m"], to=FLOAT),
        helper.make_node("Unsqueeze", ["m", "last"], ["m3"]),
        helper.make_node("Mul", ["h3", "m3"], ["masked"]),
        helper.make_node("ReduceSum", ["masked", "tokens"], ["s"], keepdims=0),
        helper.make_node("ReduceSum", ["m", "tokens"], ["n"], keepdims=1),
        helper.make_node("Div", ["s", "n"], ["logits" if logits else "sentence_embedding"]),
    ]
    w2 = rng.normal(size=(WIDTH, WIDTH)).astype(np.float32) / 5
    w2[5] /= max(outlier, 1) / 3
    constants = {
        "table": rng.normal(size=(300, WIDTH)).astype(np.float32),
        "w1": rng.normal(size=(WIDTH, WIDTH)).astype(np.float32) / 3,
        "w2": w2,
        "w3": rng.normal(size=(WIDTH, CLASSES if logits else WIDTH)).astype(np.float32),
        "gain": gain,
        "last": np.array([-1]),
        "tokens": np.array([1]),
    }
    inputs = dict.fromkeys(("input_ids", "attention_mask"), (INT64, ["batch", "tokens"]))
    output = {"logits": (FLOAT, ["batch", CLASSES])} if logits else {"sentence_embedding": (FLOAT, ["batch", WIDTH])}
    return build(nodes, inputs, output, constants)


def texts(count=20, seed=1):
    rng = np.random.default_rng(seed)
    return ModelInputs(
        [
            {"input_ids": rng.integers(0, 300, n), "attention_mask": np.ones(n, dtype=np.int64)}
            for n in rng.integers(2, 9, count)
        ]
    )


def search(model, targets, inputs=None, **arguments):
    lines = []
    defaults = {"task": "sentence-similarity", "progress": lines.append}
    return find_recipe(model, inputs or texts(), targets, **(defaults | arguments)), lines


def passes(recipe):
    return [step["pass"] for step in recipe]


def test_an_easy_model_gets_the_cheapest_recipe():
    result, lines = search(embedder(), {"cosine_min": 0.9})

    assert passes(result.recipe) == ["split_bias_gelu", "embedding_rows", "dynamic_matmul"]
    assert result.reached
    assert len(result.rungs) == len(lines) == 1
    assert result.rungs[0].metrics["cosine_min"] > 0.9
    assert 0 < result.rungs[0].size_ratio < 1
    assert result.rungs[0].speedup > 0
    assert "MatMulInteger" in op_types(result.model)


def test_a_model_with_an_outlier_channel_gets_the_passes_that_mend_it():
    result, _ = search(embedder(outlier=300.0), {"cosine_min": 0.999})

    assert "smooth" in passes(result.recipe)
    assert len(result.rungs) > 1
    assert result.rungs[0].missed == ["cosine_min"]
    assert result.rungs[-1].missed == []
    judge = Judge(embedder(outlier=300.0), texts(), "sentence-similarity")
    again = apply_recipe(embedder(outlier=300.0), result.recipe, judge.calibration)
    assert again.SerializeToString(deterministic=True) == result.model.SerializeToString(deterministic=True)


@pytest.mark.parametrize("by_reference", [False, True], ids=["whole", "by reference"])
@pytest.mark.parametrize("cosine_min", [0.9, 0.999, 0.999999])
def test_the_search_of_another_variant_goes_on_from_what_one_has_found(tmp_path, monkeypatch, cosine_min, by_reference):
    onnx.save(embedder(outlier=300.0), tmp_path / "float.onnx")
    if by_reference:
        monkeypatch.setattr(external_data, "BY_REFERENCE_BYTES", 0)
        monkeypatch.setattr(external_data, "SMALLEST_OUTSIDE", 64)

    def searched(name, **arguments):
        (tmp_path / name).mkdir()
        model = external_data.load_model(tmp_path / "float.onnx", tmp_path / name)
        result, _ = search(model, {"cosine_min": cosine_min}, **arguments)
        external_data.save_model(result.model, tmp_path / f"{name}.onnx")
        return result

    findings = Findings()
    first = searched("first", findings=findings)
    rounded = {tmp_path / "first.onnx": findings.found_in(read_rounded_weights(first.model))}
    write_findings(tmp_path / "found", "", findings.choices, rounded)
    alone = searched("alone", variant="int8-invariant")
    known = read_findings(tmp_path / "found", tmp_path, "", read_rounded_weights)
    monkeypatch.setattr("onnxproof.quantization.passes.smooth.Smoothing.best", None)
    helped = searched("helped", variant="int8-invariant", findings=known)
    assert helped.recipe == alone.recipe
    assert (tmp_path / "helped.onnx").read_bytes() == (tmp_path / "alone.onnx").read_bytes()


def test_with_fixed_scales_no_outliers_are_taken_from_products_that_share_what_they_read():
    model = embedder(outlier=300.0)
    second = next(node for node in model.graph.node if node.name == "second")
    twin = helper.make_node("MatMul", list(second.input), ["h2_twin"], name="twin")
    together = helper.make_node("Add", ["h2_first", "h2_twin"], ["h2"])
    second.output[0] = "h2_first"
    place = list(model.graph.node).index(second) + 1
    nodes = [*model.graph.node[:place], twin, together, *model.graph.node[place:]]
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(copies)

    result, _ = search(model, {"cosine_min": 1.0}, variant="int8-static")

    steps = [step for rung in result.rungs for step in rung.recipe if step["pass"] == "outlier_channels"]
    assert steps
    assert {name for step in steps for name in step["include"]} <= {"first", "third"}
    last = [rung.recipe[-1] for rung in result.rungs]
    assert all("exclude" in step for step in last if "scores" in step), "there are no queries and keys to spare"


@pytest.mark.parametrize(("variant", "evened"), [("int8-static", True), ("int8-symmetric", True), ("w8a16", False)])
def test_fixed_scales_of_8_bits_have_centered_channels_and_room(variant, evened):
    result, _ = search(embedder(), {"cosine_min": 0.9}, texts(FEWEST_CENTERED), variant=variant)
    assert ("center_channels" in passes(result.recipe)) is evened
    assert result.recipe[-1].get("room", False) is evened


@pytest.mark.parametrize(
    "inputs", [replace(texts(FEWEST_CENTERED), is_alike=False), texts(FEWEST_CENTERED - 1)], ids=["unlike", "few"]
)
def test_channels_are_not_centered_by_inputs_unlike_real_ones_or_by_few(inputs):
    result, _ = search(embedder(outlier=300.0), {"cosine_min": 1.0}, inputs, variant="int8-static")
    assert len(result.rungs) > 2
    assert {step["pass"] for rung in result.rungs for step in rung.recipe} == {
        "outlier_channels",
        "smooth",
        "embedding_rows",
        "static_matmul",
    }


def labelled(model, count, limit):
    """Labelled inputs that the float model answers rightly, by the label that it gives each."""
    inputs = texts(count, seed=9)
    judge = Judge(model, inputs, "text-classification", labels=CLASSES)
    given = {
        "model": "m",
        "kind": "classification",
        "metric": "accuracy",
        "not_worse_by": limit,
        "rows": list(range(1, count + 1)),
        "inputs": ["text"] * count,
        "labels": [int(answer.argmax()) for answer in judge.expected],
        "documents": {},
    }
    return inputs.items, Examples(given)


def test_a_recipe_must_keep_the_metric_of_labelled_inputs():
    model = embedder(outlier=300.0, logits=True)
    items, examples = labelled(model, 120, 0.0)
    inputs = ModelInputs([*texts().items, *items])
    asked = {"task": "text-classification", "labels": CLASSES, "progress": lambda line: None}
    without = find_recipe(model, inputs, {}, **asked)
    assert without.reached
    assert "labelled" not in without.record()
    result = find_recipe(model, inputs, {}, examples=examples, **asked)
    first = result.rungs[0]
    assert first.metrics["labelled_accuracy"] < 1.0
    assert first.missed == ["labelled_accuracy"]
    assert len(result.rungs) > len(without.rungs)
    kept = result.record()["labelled"]
    assert (kept["metric"], kept["of_float"], kept["not_worse_by"]) == ("accuracy", 1.0, 0.0)
    taken = next(rung for rung in result.rungs if rung.recipe == result.recipe)
    assert kept["of_recipe"] == taken.metrics["labelled_accuracy"] > first.metrics["labelled_accuracy"]
    assert "labelled_accuracy" in first.describe()


def test_labelled_inputs_without_a_metric_are_refused():
    items, examples = labelled(embedder(logits=True), 4, 0.0)
    broken = Examples(examples.given | {"kind": "pair", "labels": [1.0, 1.0]})
    broken.given["inputs"] = [["a", "b"]] * 2
    with raises(UserError):
        find_recipe(embedder(), ModelInputs([*texts().items, *items]), {}, task="sentence-similarity", examples=broken)


def test_the_invariant_flavour_does_not_depend_on_the_batch():
    result, _ = search(embedder(), {"cosine_min": 0.9, "batch_cosine_min": 0.99999}, variant="int8-invariant")
    assert passes(result.recipe)[-1] == "per_token"
    assert result.rungs[-1].metrics["batch_cosine_min"] >= 0.99999


def test_weights_by_blocks_become_more_exact_from_rung_to_rung():
    result, lines = search(embedder(outlier=20.0), {"cosine_min": 1.0}, variant="q4")
    assert not result.reached
    assert all(passes(rung.recipe) == ["embedding_blocks", "block_weights"] for rung in result.rungs)
    tables = [rung.recipe[0]["bits"] for rung in result.rungs]
    assert tables == sorted(tables)
    widened = [len(rung.recipe[1].get("eight_bit", ())) for rung in result.rungs]
    assert widened[-1] == max(widened) > 0
    assert result.rungs[-1].metrics["cosine_min"] > result.rungs[0].metrics["cosine_min"]
    assert lines[-1] == "no q4 recipe reaches every target; the nearest is taken"


def test_uint8_climbs_the_ladder_of_int8_with_unsigned_weights():
    result, _ = search(embedder(), {"cosine_min": 0.9}, variant="uint8")
    assert result.reached
    assert result.recipe[-1]["unsigned"]
    signed, _ = search(embedder(), {"cosine_min": 0.9})
    assert passes(result.recipe) == passes(signed.recipe)
    assert result.rungs[0].metrics["cosine_min"] == pytest.approx(signed.rungs[0].metrics["cosine_min"], abs=1e-3)


@pytest.mark.parametrize(("variant", "bits", "level"), [("w8", 8, 4), ("q4", 4, None), ("q4-cpu", 4, 4)])
def test_a_variant_by_blocks_takes_the_smallest_recipe_that_is_good_enough(variant, bits, level):
    result, _ = search(embedder(), {"cosine_min": 0.9}, variant=variant)
    assert result.reached
    assert len(result.rungs) == 1
    table, weights = result.recipe
    assert (weights["bits"], weights.get("accuracy_level"), table.get("accuracy_level")) == (bits, level, level)
    assert op_types(result.model).count("MatMulNBits") == 3


def test_classifiers_are_judged_by_their_labels():
    result, _ = search(embedder(logits=True), {"top1_agreement": 0.5, "cosine_min": 1.0}, task="text-classification")
    assert set(result.rungs[-1].metrics) == {"top1_agreement", "max_probability_diff", "mean_kl", "batch_cosine_min"}


def test_where_no_recipe_reaches_the_targets_the_nearest_is_taken_and_every_rung_told():
    result, lines = search(embedder(outlier=300.0), {"cosine_min": 1.0})

    assert not result.reached
    assert len(result.rungs) == 5
    assert result.rungs[-1].recipe[-1]["exclude"]
    assert all(rung.missed == ["cosine_min"] for rung in result.rungs)
    nearest = max(result.rungs, key=lambda rung: rung.metrics["cosine_min"])
    assert result.recipe == nearest.recipe != result.rungs[0].recipe
    assert lines[-1] == "no int8 recipe reaches every target; the nearest is taken"
    assert sum("misses cosine_min" in line for line in lines) == 5 + 1  # the nearest once more, with all metrics


def test_batches_and_speed_are_measured_only_where_the_answers_alone_reach_the_targets():
    result, lines = search(embedder(outlier=300.0), {"cosine_min": 0.999, "batch_cosine_min": 0.5})
    *missing, taken = result.rungs
    assert missing
    for rung in missing:
        assert rung.missed == ["cosine_min"]
        assert rung.speedup is None
        assert "batch_cosine_min" not in rung.metrics
    assert taken.speedup > 0
    assert taken.metrics["batch_cosine_min"] > 0.5
    assert ["x speed" in line for line in lines] == [False] * len(missing) + [True]


@pytest.mark.parametrize(
    ("cosine_min", "batch_cosine_min"), [(0.9999999, 0.5), (0.9999999, 0.9999999), (0.99, 1.0), (0.9, 1.0), (1.0, 1.0)]
)
@pytest.mark.parametrize("outlier", [1.0, 20.0, 300.0])
def test_the_nearest_is_the_one_that_it_is_where_everything_is_measured(outlier, cosine_min, batch_cosine_min):
    targets = {"cosine_min": cosine_min, "batch_cosine_min": batch_cosine_min}
    result, _ = search(embedder(outlier), targets)
    assert not result.reached
    judge = Judge(embedder(outlier), texts(), "sentence-similarity")
    distances = []
    for rung in result.rungs:
        metrics = judge.measure(apply_recipe(embedder(outlier), rung.recipe, judge.calibration))
        distances.append(max(distances_to(targets, metrics).values()))
    nearest = distances.index(min(distances))
    assert result.recipe == result.rungs[nearest].recipe
    assert result.rungs[nearest].speedup > 0
    assert result.rungs[nearest].distance == distances[nearest]
    again = apply_recipe(embedder(outlier), result.recipe, judge.calibration)
    assert again.SerializeToString(deterministic=True) == result.model.SerializeToString(deterministic=True)


def test_without_targets_the_fastest_recipe_is_good_enough():
    result, _ = search(embedder(), {})
    assert result.reached
    assert len(result.rungs) == 1


def test_the_record_of_a_search_is_json():
    result, _ = search(embedder(), {"cosine_min": 1.0})
    record = json.loads(json.dumps(result.record(), allow_nan=False))
    assert record["reached"] is False
    assert record["rungs"][0]["metrics"]["cosine_min"] == result.rungs[0].metrics["cosine_min"]
    assert record["rungs"][0]["recipe"] == result.rungs[0].recipe


def test_a_variant_that_is_not_quantized_is_an_error():
    with raises(UserError):
        search(embedder(), {"cosine_min": 0.9}, variant="fp32")


@pytest.mark.parametrize(
    ("metrics", "targets", "distances"),
    [
        ({"cosine_min": 0.98}, {"cosine_min": 0.96}, {"cosine_min": 0.5}),
        ({"cosine_min": 0.92}, {"cosine_min": 0.96}, {"cosine_min": 2}),
        ({"mean_kl": 0.05}, {"mean_kl": 0.1}, {"mean_kl": 0.5}),
        ({"mean_kl": None}, {"mean_kl": 0.1}, {"mean_kl": math.inf}),
        ({"cosine_min": 0.1}, {"cosine_min": None, "top1_agreement": 0.9}, {}),
        ({"top1_agreement": 1.0}, {"top1_agreement": 1.0}, {"top1_agreement": 0}),
        ({"top1_agreement": 0.9}, {"top1_agreement": 1.0}, {"top1_agreement": 1e5}),
    ],
)
def test_the_distance_to_a_target_is_the_share_of_its_room(metrics, targets, distances):
    assert distances_to(targets, metrics) == pytest.approx(distances)


def test_the_most_sensitive_node_is_the_one_behind_the_outlier():
    model = embedder(outlier=300.0)
    judge = Judge(model, texts(), "sentence-similarity")
    step = {"pass": "dynamic_matmul", "weight_range": "pair_safe"}

    ranking = measure_sensitivity(model, step, judge, progress=lambda line: None)

    assert next(iter(ranking)) == "second"
    assert sorted(ranking) == ["first", "second", "third"]
    assert ranking["second"] > 5 * ranking["third"] > 0


def test_padding_does_not_reach_a_float_answer():
    model = embedder()
    judge = Judge(model, texts(), "sentence-similarity", batch_size=5)
    assert judge.measure(model)["batch_cosine_min"] == pytest.approx(1, abs=1e-6)
    assert judge.distance(model) == pytest.approx(0, abs=1e-9)


def test_a_model_by_reference_gets_the_same_recipe_and_bytes(tmp_path, monkeypatch):
    onnx.save(embedder(outlier=300.0), tmp_path / "model.onnx")
    saved = []
    for smallest in (None, 64):
        if smallest is not None:
            monkeypatch.setattr(external_data, "BY_REFERENCE_BYTES", 0)
            monkeypatch.setattr(external_data, "SMALLEST_OUTSIDE", smallest)
        model = external_data.load_model(tmp_path / "model.onnx", tmp_path)
        assert (external_data.weights_folder(model) is None) == (smallest is None)
        result, _ = search(model, {"cosine_min": 0.999})
        external_data.save_model(result.model, tmp_path / "int8.onnx")
        saved.append((result.recipe, (tmp_path / "int8.onnx").read_bytes()))
    assert saved[0] == saved[1]


def test_a_large_model_is_searched_with_less_effort(monkeypatch):
    monkeypatch.setattr(candidates, "SINGLE_FILE_BYTES", 1000)
    result, lines = search(embedder(), {"cosine_min": 1.0})
    assert len(result.rungs) == len(PREPARATIONS)
    assert result.record()["limited_to"] == {"inputs": 8, "widest": 2048, "float_nodes": ()}
    assert result.recipe[-1]["widest"] == 2048
    assert lines[0] == "a large model: 7 calibration inputs, and no search for its sensitive nodes"


def test_the_effort_depends_on_the_size_alone():
    assert limit_effort(SINGLE_FILE_BYTES - 1) is None
    assert limit_effort(SINGLE_FILE_BYTES).inputs == 48
    assert limit_effort(2 * SINGLE_FILE_BYTES).inputs == 24
    assert limit_effort(100 * SINGLE_FILE_BYTES).inputs == 8


def test_a_rung_that_rounding_cannot_mend_is_not_rounded_with_care(monkeypatch):
    model, targets = embedder(outlier=300.0), {"cosine_min": 0.999}
    found, _ = search(model, targets)
    monkeypatch.setattr(search_module, "HOPELESS", math.inf)
    with_care, _ = search(model, targets)

    assert found.rungs[0].recipe[-1]["rounding"] == "nearest"
    assert with_care.rungs[0].recipe[-1]["rounding"] == "compensated"
    assert found.recipe == with_care.recipe
    assert found.recipe[-1]["rounding"] == "compensated"
    assert found.model.SerializeToString(deterministic=True) == with_care.model.SerializeToString(deterministic=True)


def test_a_rung_is_run_in_batches_once_and_only_where_its_answers_alone_reach_the_targets(monkeypatch):
    counted = []
    measure = Judge.measure_batched
    monkeypatch.setattr(Judge, "measure_batched", lambda *given: counted.append(given) or measure(*given))
    found, _ = search(embedder(outlier=300.0), {"cosine_min": 0.999})
    assert {rung.recipe[-1]["rounding"] for rung in found.rungs} == {"nearest", "compensated"}
    assert ["batch_cosine_min" in rung.metrics for rung in found.rungs] == [not rung.missed for rung in found.rungs]
    assert len(counted) == 1


@pytest.mark.parametrize(
    ("distances", "hopeless"),
    [({"cosine_min": 2.9, "batch_cosine_min": 9}, False), ({"cosine_mean": 3.1}, True), ({"top1_agreement": 5}, False)],
)
def test_only_measures_that_do_not_jump_end_a_rung_early(distances, hopeless):
    assert search_module.is_hopeless(distances) is hopeless


def test_a_search_that_takes_long_says_how_far_each_of_its_steps_is(monkeypatch):
    monkeypatch.setattr("onnxproof.progress.EVERY_S", 0.0)
    _, lines = search(embedder(outlier=300.0), {"cosine_min": 0.999})
    told = {line.partition(":")[0] for line in lines if re.search(r": \d+ of \d+ \w+ done, about \d+ s left$", line)}
    assert told == {
        "running the float model",
        "running the calibration inputs",
        "choosing scales",
        "rounding weights",
        "comparing answers",
        "comparing answers in batches",
    }


@pytest.mark.parametrize("variant", QUANTIZED_VARIANTS)
def test_a_search_makes_the_same_bytes_of_weights_in_memory_and_in_files(tmp_path, monkeypatch, variant):
    monkeypatch.setattr(external_data, "SMALLEST_OUTSIDE", 64)
    onnx.save(embedder(outlier=20.0), tmp_path / "float.onnx")
    made = []
    for whole_below in (1 << 20, 0):
        scratch = tmp_path / str(whole_below)
        scratch.mkdir()
        model = external_data.load_model(tmp_path / "float.onnx", scratch, whole_below)
        result, _ = search(model, {"cosine_min": 0.999}, variant=variant)
        external_data.save_model(result.model, scratch / "model.onnx")
        made.append((scratch / "model.onnx").read_bytes())
    assert made[0] == made[1]
