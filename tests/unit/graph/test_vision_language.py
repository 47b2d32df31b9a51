"""Prompts with images without torch: as transformers' own processors and networks make them."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from messages import raises
from onnxproof.cli import UserError
from onnxproof.graph.vision_language import VisionLanguage, read_image_token
from onnxproof.inputs.calibration import cut_into_patches, prompt_images
from onnxproof.inputs.image_places import image_marks, image_positions, image_prompt
from onnxproof.inputs.model_inputs import ModelInputs
from onnxproof.inputs.preprocessing import prompt_image_shape
from onnxproof.original.image_prompts import prompt_inputs

IMAGE_TOKEN = 9


@pytest.mark.parametrize("has_start", [True, False])
def test_image_comes_after_what_starts_a_text(has_start):
    tokens, kinds = image_prompt(np.array([2, 5, 6]), IMAGE_TOKEN, 3, has_start)
    expected = [2, 9, 9, 9, 5, 6] if has_start else [9, 9, 9, 2, 5, 6]
    assert tokens.tolist() == expected
    assert kinds.tolist() == [int(token == IMAGE_TOKEN) for token in expected]


def test_marks_that_the_configuration_names_stand_around_an_image():
    marks = image_marks({"vision_start_token_id": 7, "vision_end_token_id": 8})
    assert marks == image_marks({"boi_token_index": 7, "eoi_token_index": 8}) == [7, 8]
    assert image_marks({"vision_start_token_id": 7}) == []
    assert image_marks({"boi_token_index": 7, "eoi_token_index": 8, "text_config": {"vocab_size": 8}}) == []
    tokens, kinds = image_prompt(np.array([2, 5]), IMAGE_TOKEN, 2, True, marks)
    assert tokens.tolist() == [2, 7, 9, 9, 8, 5]
    assert kinds.tolist() == [0, 0, 1, 1, 0, 0]


@pytest.mark.parametrize("grid", [(1, 4, 6), (1, 8, 4), (1, 2, 2)])
@pytest.mark.parametrize("has_start", [True, False])
def test_positions_of_an_image_are_those_of_qwen2_vl(grid, has_start):
    torch = pytest.importorskip("torch")
    from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2VLModel

    count = grid[1] * grid[2] // 4
    tokens, kinds = image_prompt(np.arange(5), IMAGE_TOKEN, count, has_start)
    # Of the network, only its settings are read.
    network = SimpleNamespace(config=SimpleNamespace(vision_config=SimpleNamespace(spatial_merge_size=2)))
    network.get_vision_position_ids = lambda *args, **options: Qwen2VLModel.get_vision_position_ids(
        network, *args, **options
    )
    arrays = (torch.from_numpy(values)[None] for values in (tokens, kinds, np.array(grid)))
    expected, _ = Qwen2VLModel.get_rope_index(network, *arrays)
    np.testing.assert_array_equal(image_positions(kinds, np.array(grid), 2), expected[:, 0].numpy())


def test_patches_are_those_of_qwen2_vls_own_image_processor():
    pytest.importorskip("PIL")
    from transformers import Qwen2VLImageProcessorPil

    image = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    processor = Qwen2VLImageProcessorPil(patch_size=4, do_resize=False, do_normalize=False)
    expected = processor(images=image, return_tensors="np")
    made = cut_into_patches(image.transpose(2, 0, 1).astype(np.float32) / 255, 2, 4, 2)
    np.testing.assert_array_equal(made["image_grid_thw"][None], expected["image_grid_thw"])
    np.testing.assert_allclose(made["pixel_values"], expected["pixel_values"], atol=1e-6)


SETTINGS = {
    "smolvlm": ({"size": {"longest_edge": 64}, "max_image_size": {"longest_edge": 32}}, (1, 3, 32, 32)),
    "gemma3": ({"size": {"height": 24, "width": 24}}, (3, 24, 24)),
    "llava": ({"size": {"shortest_edge": 20}, "crop_size": {"height": 16, "width": 16}}, (3, 16, 16)),
    "qwen2_vl": (
        {"patch_size": 4, "merge_size": 2, "temporal_patch_size": 2}
        | {"size": {"shortest_edge": 64, "longest_edge": 1024}},
        (64, 96),
    ),
}


@pytest.mark.parametrize("kind", SETTINGS)
def test_calibration_images_have_the_shape_that_the_processor_makes(kind, tmp_path):
    settings, shape = SETTINGS[kind]
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    images = prompt_images(tmp_path, {"model_type": kind, "vision_config": {}})
    assert {image["pixel_values"].shape for image in images} == {shape}
    assert len({image["pixel_values"].tobytes() for image in images}) == len(images)


def test_shape_of_an_image_is_the_vision_models_where_the_processor_says_nothing():
    assert prompt_image_shape({}, {"vision_config": {"image_size": 48}}) == (48, 48)


def test_patches_of_a_batch_follow_each_other_and_parts_of_positions_come_first():
    items = [
        {
            "pixel_values": np.full((patches, 6), patches, np.float32),
            "image_grid_thw": np.array([1, 2, patches // 2]),
            "position_ids": np.full((3, patches), patches),
        }
        for patches in (4, 8)
    ]
    feed = ModelInputs(items, padding_side="left").feed([0, 1], list(items[0]))
    assert feed["pixel_values"].shape == (12, 6)
    assert feed["image_grid_thw"].tolist() == [[1, 2, 2], [1, 2, 4]]
    assert feed["position_ids"].shape == (3, 2, 8)
    assert feed["position_ids"][:, 0].tolist() == [[0] * 4 + [4] * 4] * 3


@pytest.mark.parametrize(
    ("config", "token"),
    [({"image_token_id": 7}, 7), ({"image_token_index": 8}, 8), ({"model_type": "llava"}, 32_000)],
)
def test_image_token_is_read_from_the_configuration(config, token, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert read_image_token(tmp_path) == token


def test_configuration_without_an_image_token_is_refused(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with raises(UserError):
        read_image_token(tmp_path)


class Processor:
    """Stands for an image processor that cuts images into so many, and makes them as high as they were."""

    do_pan_and_scan = None

    def __init__(self, images):
        self.images, self.options = images, []

    def __call__(self, images, return_tensors, **options):
        self.options.append(options)
        return {"pixel_values": np.zeros((self.images, 3, images.shape[0], 8)), "num_crops": [self.images]}


class Tokenizer:
    all_special_ids, pad_token_id = (2,), 0

    def __call__(self, text, truncation, max_length):
        return {"input_ids": [2, 5, 6]}


def network_of(features):
    """Return what stands for a network: it makes these vectors of an image."""

    def get_image_features(pixel_values):
        return SimpleNamespace(pooler_output=features(pixel_values))

    text = SimpleNamespace(rope_parameters=None)
    config = SimpleNamespace(image_token_id=IMAGE_TOKEN, get_text_config=lambda: text)
    return SimpleNamespace(get_image_features=get_image_features, config=config, forward=lambda input_ids: None)


@pytest.mark.parametrize(
    ("images", "features"),
    [
        (2, lambda pixels: pixels),
        (1, lambda pixels: pixels.mean(1)),
        (1, lambda pixels: pixels.no_such_method()),
    ],
)
def test_images_that_are_not_served_are_refused_with_the_reason(images, features):
    pytest.importorskip("torch")
    processor = Processor(images)
    with raises(UserError):
        prompt_inputs(network_of(features), {}, (Tokenizer(), processor), 8)
    assert processor.options[0] == {"do_pan_and_scan": False}


def value(name, shape=(1,)):
    return SimpleNamespace(name=name, type="tensor(int64)", shape=shape)


class Graph:
    """Stands for an onnxruntime session."""

    def __init__(self, inputs, answer):
        self.inputs, self.answer, self.feeds = inputs, answer, []

    def get_inputs(self):
        return self.inputs

    def get_outputs(self):
        return [value("logits"), value("present.0.key")]

    def run(self, names, feed):
        self.feeds.append({name: array.copy() for name, array in feed.items()})
        outputs = self.answer(feed)
        return [outputs[name] for name in names]


@pytest.fixture
def adder():
    """A model whose next token is the sum of all vectors so far, modulo 10."""

    def decode(feed):
        past = feed["past_key_values.0.key"]
        sums = past.sum(axis=(1, 2, 3)) + feed["inputs_embeds"].sum(axis=(1, 2))
        grown = np.concatenate([past, feed["inputs_embeds"][:, None]], axis=2)
        return {"logits": np.eye(10)[sums.astype(int) % 10][:, None], "present.0.key": grown}

    cache = value("past_key_values.0.key", ("batch", 1, "past", 1))
    decoder_inputs = [value(name) for name in ("inputs_embeds", "attention_mask", "position_ids", "token_type_ids")]
    return VisionLanguage(
        Graph([value("pixel_values")], lambda feed: {"image_features": feed["pixel_values"].reshape(-1, 1)}),
        Graph([value("input_ids")], lambda feed: {"inputs_embeds": feed["input_ids"][..., None].astype(np.float32)}),
        Graph([*decoder_inputs, cache], decode),
        IMAGE_TOKEN,
    )


FEED = {
    "pixel_values": np.array([[40, 2]], np.float32),
    "input_ids": np.array([[3, 9, 9, 1]]),
    "attention_mask": np.ones((1, 4), np.int64),
    "position_ids": np.array([[0, 1, 1, 2]]),
    "token_type_ids": np.array([[0, 1, 1, 0]]),
}


def test_vectors_of_an_image_take_the_places_of_its_tokens(adder):
    assert [each.name for each in adder.get_inputs()] == list(FEED)
    assert adder.embed(FEED).ravel().tolist() == [3, 40, 2, 1]
    (logits,) = adder.run(["logits"], FEED)
    assert logits.argmax() == 6


def test_with_and_without_the_cache_the_same_is_written(adder):
    expected = [6, 2, 4, 8]  # 46, then 46 + 6, …
    assert adder.generate(FEED, 4, use_cache=False) == expected
    assert adder.decoder.feeds[-1]["inputs_embeds"].shape == (1, 7, 1)
    assert adder.generate(FEED, 4) == expected
    assert adder.decoder.feeds[-1]["inputs_embeds"].shape == (1, 1, 1)


def test_new_tokens_are_seen_are_no_image_and_come_after_the_largest_position(adder):
    for options, positions in (({}, [[5]]), ({"use_cache": False}, [[0, 1, 1, 2, 3, 4, 5]])):
        adder.generate(FEED, 4, **options)
        last = adder.decoder.feeds[-1]
        assert last["attention_mask"].tolist() == [[1] * 7]
        assert last["token_type_ids"].tolist() == [[0, 1, 1, 0, 0, 0, 0]]
        assert last["position_ids"].tolist() == positions
