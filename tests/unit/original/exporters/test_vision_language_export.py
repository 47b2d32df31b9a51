"""Exported models that write about images answer as PyTorch does, token by token, with and without the cache."""

import functools

import numpy as np
import onnx
import pytest
import torch
import transformers

from onnxproof.graph.files import EMBEDDING_FILE, MERGED_FILE, VISION_FILE, VISION_LANGUAGE_FILES, separate_graphs
from onnxproof.graph.sessions import open_session
from onnxproof.graph.vision_language import VisionLanguage
from onnxproof.original.exporters.vision_language import export_vision_language

pytestmark = pytest.mark.slow  # exporting three graphs takes ten seconds

WORDS, IMAGE_TOKEN, WRITTEN = 120, 110, 16
TEXT = {"vocab_size": WORDS, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
TEXT |= {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256, "pad_token_id": 0}
VISION = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
VISION |= {"image_size": 32, "patch_size": 8}
#: Config class, and what differs from its defaults.
KINDS = {
    "smolvlm": (
        "SmolVLMConfig",
        {"text_config": TEXT | {"model_type": "llama"}, "vision_config": VISION, "scale_factor": 2},
    ),
    "llava": (
        "LlavaConfig",
        {
            "text_config": TEXT | {"model_type": "llama"},
            "vision_config": VISION | {"model_type": "clip_vision_model", "num_hidden_layers": 3},
        },
    ),
    # Its image token is none of its vocabulary.
    "gemma3": (
        "Gemma3Config",
        {
            "text_config": TEXT
            | {"head_dim": 8, "sliding_window": 9, "layer_types": ["sliding_attention", "full_attention"]},
            "vision_config": VISION,
            "mm_tokens_per_image": 4,
            "image_token_index": WORDS,
        },
    ),
    "qwen2_vl": (
        "Qwen2VLConfig",
        {
            "text_config": TEXT | {"rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2]}},
            "vision_config": {"depth": 2, "embed_dim": 32, "hidden_size": 32, "num_heads": 4, "patch_size": 4},
            "video_token_id": 111,
            "vision_start_token_id": 112,
        },
    ),
    # Windows of 2 x 2 tokens in the first layer and the last, of images of 2 x 3, 1 x 2 and 3 x 2 tokens.
    "qwen2_5_vl": (
        "Qwen2_5_VLConfig",
        {
            "text_config": TEXT | {"rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2]}},
            "vision_config": {"depth": 3, "hidden_size": 32, "out_hidden_size": 32, "num_heads": 4, "patch_size": 4}
            | {"intermediate_size": 48, "window_size": 16, "fullatt_block_indexes": [1]},
            "video_token_id": 111,
            "vision_start_token_id": 112,
        },
    ),
}


def make_network(name):
    """Return a network with random weights that are large enough for every token, and the image, to matter."""
    config_class, options = KINDS[name]
    torch.manual_seed(0)
    config = getattr(transformers, config_class)(**{"image_token_id": IMAGE_TOKEN} | options)
    network = transformers.AutoModelForImageTextToText.from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for key, weight in network.named_parameters():
            if weight.ndim == 2:
                weight.normal_(std=weight.shape[1] ** -0.5 * (4 if "embed" in key else 1.5))
    return network


def make_images(name):
    """Return what the vision encoder reads of three prompts, of different numbers or sizes where it takes these."""
    draw = torch.Generator().manual_seed(1)
    if name == "smolvlm":
        samples = []
        for images in (2, 1, 3):
            pixels = torch.randn(1, images, 3, 32, 32, generator=draw)
            mask = torch.ones(1, images, 32, 32, dtype=torch.bool)
            mask[:, -1, :, 24:] = False
            samples.append({"pixel_values": pixels, "pixel_attention_mask": mask})
        return samples
    if name.startswith("qwen2"):
        return [
            {
                "pixel_values": torch.randn(rows * columns, 96, generator=draw),
                "image_grid_thw": torch.tensor([[1, rows, columns]]),
            }
            for rows, columns in ((4, 6), (2, 4), (6, 4))
        ]
    return [{"pixel_values": torch.randn(1, 3, 32, 32, generator=draw)} for _ in range(3)]


def make_prompt(network, images):
    """Return all inputs of a prompt with its images, by the names of the network's arguments, and its positions."""
    with torch.inference_mode():
        made = network.get_image_features(**images).pooler_output
    made = made if isinstance(made, torch.Tensor) else torch.cat(list(made))
    image_token = network.config.image_token_id
    tokens = torch.tensor([[2, *[image_token] * made.reshape(-1, made.shape[-1]).shape[0], 20, 21, 30, 40]])
    inputs = {**images, "input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
    kinds, positions = (tokens == image_token).long(), torch.arange(tokens.shape[1])[None]
    if "image_grid_thw" in images:
        inputs["mm_token_type_ids"] = kinds
        positions, _ = network.model.get_rope_index(tokens, kinds, images["image_grid_thw"])
    elif network.config.model_type == "gemma3":
        inputs["token_type_ids"] = kinds
    return inputs, positions


def feed_of(inputs, positions):
    return {name: tensor.numpy() for name, tensor in inputs.items()} | {"position_ids": positions.numpy()}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    @functools.cache
    def export(name):
        network, folder = make_network(name), tmp_path_factory.mktemp(name)
        export_vision_language(network, make_images(name), folder)
        sessions = [open_session(folder / file, 1) for file in (VISION_FILE, EMBEDDING_FILE, MERGED_FILE)]
        return network, folder, VisionLanguage(*sessions, network.config.image_token_id)

    return export


@pytest.mark.parametrize("name", KINDS)
def test_it_writes_what_pytorch_generates(exported, name):
    network, _, model = exported(name)
    options = {"max_new_tokens": WRITTEN, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    network.generation_config = transformers.GenerationConfig(**options)
    written = []
    for images in make_images(name):
        inputs, positions = make_prompt(network, images)
        with torch.inference_mode():
            expected = network.generate(**inputs)[0, -WRITTEN:].tolist()
        feed = feed_of(inputs, positions)
        assert model.generate(feed, WRITTEN, use_cache=True) == expected
        assert model.generate(feed, WRITTEN, use_cache=False) == expected
        written.append(expected)
    if name != "gemma3":  # whose random weights write one word again and again
        assert written[0] != written[1]


@pytest.mark.parametrize("name", KINDS)
def test_it_answers_a_prompt_as_pytorch_does(exported, name):
    network, _, model = exported(name)
    for images in make_images(name):
        inputs, positions = make_prompt(network, images)
        with torch.inference_mode():
            expected = network(**inputs, use_cache=False).logits.numpy()
        (actual,) = model.run(["logits"], feed_of(inputs, positions))
        assert np.abs(actual - expected).max() < 1e-4 * np.abs(expected).max()


def shapes(values):
    return {
        value.name: [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim] for value in values
    }


def test_it_is_named_as_clients_read_it(exported):
    folder = exported("smolvlm")[1]
    vision, embedding, decoder = (onnx.load(folder / file).graph for file in VISION_LANGUAGE_FILES)
    images = ["batch_size", "num_images", 32, 32]
    assert shapes(vision.input) == {"pixel_values": [*images[:2], 3, 32, 32], "pixel_attention_mask": images}
    assert shapes(vision.output) == {"image_features": ["num_image_tokens", 32]}
    assert shapes(embedding.input) == {"input_ids": ["batch_size", "sequence_length"]}
    assert shapes(embedding.output) == {"inputs_embeds": ["batch_size", "sequence_length", 32]}
    total = "past_sequence_length + sequence_length"
    cache = {
        f"{layer}.{kind}": ["batch_size", 2, "past_sequence_length", 8]
        for layer in range(2)
        for kind in ("key", "value")
    }
    assert shapes(decoder.input) == {
        "inputs_embeds": ["batch_size", "sequence_length", 32],
        "attention_mask": ["batch_size", total],
        "position_ids": ["batch_size", "sequence_length"],
        **{f"past_key_values.{name}": axes for name, axes in cache.items()},
    }
    assert list(shapes(decoder.output)) == ["logits", *(f"present.{name}" for name in cache)]
    assert separate_graphs(folder) == list(VISION_LANGUAGE_FILES)


def test_images_that_are_padding_are_left_out(exported):
    model = exported("smolvlm")[2]
    many, one = make_images("smolvlm")[0], make_images("smolvlm")[1]
    padded = {
        name: np.concatenate([many[name], np.concatenate([one[name], np.zeros_like(one[name])], axis=1)])
        for name in many
    }
    alone = [model.look({name: tensor.numpy() for name, tensor in images.items()}) for images in (many, one)]
    (by_graph,) = model.vision.run(["image_features"], padded)
    for features in (by_graph, model.look(padded)):
        np.testing.assert_allclose(features, np.concatenate(alone), atol=1e-5)
