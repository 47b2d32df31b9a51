"""Self-attentions of exported encoders become one operator each, with the same answers; others are left alone."""

from collections import Counter

import numpy as np
import onnx
import pytest

from architectures import ENCODERS, TEXT_SIZES, randomize
from exported_graphs import export_model
from onnxproof.graph import external_data
from onnxproof.graph.editor import GraphEditor
from onnxproof.graph.external_data import load_model, save_model
from onnxproof.graph.fusions.attention import FuseSelfAttention
from onnxproof.graph.fusions.masks import MaskReader
from onnxproof.graph.fusions.rules import apply_rules
from onnxproof.quantization.sessions import open_session
from onnxproof.quantization.targets import find_targets

LAYERS = 2
IMAGE_SIZES = {"image_size": 32, "patch_size": 8} | {
    key: TEXT_SIZES[key] for key in ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
}
SOUND_SIZES = {key: value for key, value in TEXT_SIZES.items() if key != "max_position_embeddings"} | {
    "conv_dim": (16, 16),
    "conv_stride": (16, 20),
    "conv_kernel": (20, 20),
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
    "num_feat_extract_layers": 2,
    "vocab_size": 40,
}
#: Config class and sizes of models whose attentions are fused.
FUSED = {
    "bert": ENCODERS["bert"],
    "distilbert": ENCODERS["distilbert"],
    "roberta": ENCODERS["roberta"],
    "albert": ENCODERS["albert"],
    "electra": ENCODERS["electra"],
    "vit": ("ViTConfig", IMAGE_SIZES),
    "beit, without a bias of the keys": ("BeitConfig", IMAGE_SIZES | {"num_channels": 3}),
    "dinov2": ("Dinov2Config", IMAGE_SIZES),
    "wav2vec2, whose mask is of frames": ("Wav2Vec2Config", SOUND_SIZES),
}
#: And of those whose attentions are another kind: their masks, relative positions, rotations.
LEFT = {
    "bert as a decoder: causal": ("BertConfig", {"is_decoder": True, "use_cache": False}),
    "modernbert: windowed, rotary": ENCODERS["modernbert"],
    "mpnet: relative positions": ENCODERS["mpnet"],
    "mobilebert: values of another source": ENCODERS["mobilebert"],
    "llama: causal, rotary": ("LlamaConfig", {"use_cache": False}),
}
#: Exporting takes seconds, and others take BERT's way or are the same kind.
SLOW = (
    *("roberta", "albert", "electra", "dinov2", "wav2vec2, whose mask is of frames"),
    *("mobilebert: values of another source", "llama: causal, rotary"),
)


@pytest.fixture(scope="module")
def graph_of(tmp_path_factory):
    """A function that gives a model's exported graph."""
    made = {}

    def graph(name):
        import torch
        import transformers

        if name not in made:
            config_class, options = (FUSED | LEFT)[name]
            sizes = TEXT_SIZES | {"vocab_size": 100} if "image_size" not in options else {}
            torch.manual_seed(0)
            model = transformers.AutoModel.from_config(getattr(transformers, config_class)(**sizes | options))
            made[name] = export_model(randomize(model), tmp_path_factory.mktemp("model") / "model.onnx")
        return onnx.ModelProto.FromString(made[name].SerializeToString())

    return graph


def fuse(model):
    """Fuse in place; return how many and the reasons against the others."""
    rule = FuseSelfAttention(MaskReader(model))
    return apply_rules(model, [rule]), rule.reasons


def feeds_of(model):
    """Inputs of two shapes, with padding."""
    for batch, length in ((2, 16), (3, 33)):
        generator = np.random.default_rng(length)
        feed = {}
        for value in model.graph.input:
            sizes = [dimension.dim_value for dimension in value.type.tensor_type.shape.dim]
            is_sound = "input_values" in [other.name for other in model.graph.input]
            shape = [size or (batch, length * (400 if is_sound else 1))[axis] for axis, size in enumerate(sizes)]
            if value.name == "attention_mask":
                feed[value.name] = np.ones(shape, np.int64)
                feed[value.name][0, shape[1] // 2 :] = 0
            elif value.type.tensor_type.elem_type == onnx.TensorProto.INT64:
                feed[value.name] = generator.integers(5, 90, shape) * (value.name == "input_ids")
            else:
                feed[value.name] = generator.standard_normal(shape, np.float32)
        yield feed


def assert_same_answers(model, original):
    """Compare the first outputs of two models where the mask hides nothing."""
    for feed in feeds_of(original):
        expected, actual = (open_session(graph, 1).run(None, feed)[0] for graph in (original, model))
        shown = feed.get("attention_mask", np.ones(expected.shape[:2])) != 0
        if shown.shape != expected.shape[:2]:
            shown = np.ones(expected.shape[:2], bool)
        np.testing.assert_allclose(actual[shown], expected[shown], atol=2e-5)


def operators(model):
    return Counter(node.op_type for node in model.graph.node)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in FUSED]
)
def test_attentions_become_one_operator_with_the_same_answers(graph_of, name):
    original, model = graph_of(name), graph_of(name)
    count, reasons = fuse(model)
    assert (count, dict(reasons)) == (LAYERS, {})
    assert operators(model)["Attention"] == LAYERS
    # What computes a mask stays where the mask is of frames, and what makes relative positions, in BEiT.
    kept = set(operators(original)) if "beit" in name else {"GatherND", "Where"} if "frames" in name else set()
    assert not {"Softmax", "GatherND", "Where"} & set(operators(model)) - kept
    assert_same_answers(model, original)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        pytest.param(name, reason, marks=pytest.mark.slow if name in SLOW else ())
        for name, reason in zip(
            LEFT,
            (
                "the mask is another one for each query",
                "the mask is another one for each query",
                "several additions",
                "not made from one activation",
                "the mask is another one for each query",
            ),
            strict=True,
        )
    ],
)
def test_attentions_of_other_kinds_are_left_and_the_reason_is_known(graph_of, name, reason):
    original, model = graph_of(name), graph_of(name)
    count, reasons = fuse(model)
    assert count == 0
    assert model == original
    assert any(reason in known for known in reasons), reasons


def test_the_mask_is_converted_once_for_all_layers(graph_of):
    model = graph_of("bert")
    fuse(model)
    masks = {node.input[3] for node in model.graph.node if node.op_type == "Attention"}
    assert len(masks) == 1
    [cast] = [node for node in model.graph.node if node.output[0] in masks]
    assert (cast.op_type, list(cast.input)) == ("Cast", ["attention_mask"])


def test_layers_that_share_weights_still_do(graph_of):
    model = graph_of("albert")
    fuse(model)
    assert len({node.input[1] for node in model.graph.node if node.op_type == "Attention"}) == 1


def test_all_products_of_the_fused_graph_can_be_quantized(graph_of):
    model = graph_of("bert")
    fuse(model)
    kinds = Counter(target.node.op_type for target in find_targets(GraphEditor(model)))
    assert kinds == {"Attention": LAYERS, "MatMul": 3 * LAYERS, "Gemm": 1}  # the Gemm is the pooler


def test_attention_weights_that_are_an_output_keep_the_attention_as_it_is(graph_of):
    model = graph_of("bert")
    for node in [node for node in model.graph.node if node.op_type == "Softmax"]:
        model.graph.output.append(onnx.helper.make_tensor_value_info(node.output[0], onnx.TensorProto.FLOAT, None))
    assert fuse(model)[0] == 0


def test_weights_in_files_stay_in_files(graph_of, tmp_path, monkeypatch):
    original = graph_of("bert")
    monkeypatch.setattr(external_data, "BY_REFERENCE_BYTES", 0)
    monkeypatch.setattr(external_data, "SMALLEST_OUTSIDE", 512)
    onnx.save(
        graph_of("bert"), tmp_path / "model.onnx", save_as_external_data=True, location="weights", size_threshold=512
    )
    model = load_model(tmp_path / "model.onnx", tmp_path)
    assert fuse(model)[0] == LAYERS
    assert max(len(tensor.raw_data) for tensor in model.graph.initializer) < 512
    assert_same_answers(model, original)
    save_model(model, tmp_path / "saved.onnx")
    assert_same_answers(onnx.load(tmp_path / "saved.onnx"), original)
