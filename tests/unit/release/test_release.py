"""What a release is put together from: golden inputs, tokenizer files, the model card."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import yaml
from huggingface_hub import ModelCard
from onnx import helper, numpy_helper
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from onnxproof.checkpoint.sentence_modules import lift_transformer
from onnxproof.config.checks import problems_of
from onnxproof.config.resolve import resolve_models
from onnxproof.graph.exported_model import describe_traced, write_export_file
from onnxproof.inputs.model_inputs import ModelInputs, Reference
from onnxproof.inputs.texts import CALIBRATION_TEXTS
from onnxproof.release.card import (
    CLIENTS,
    IN_NODE,
    READS_EXPORT_FILE,
    card_metadata,
    kind_of_use,
    places_of,
    read_metadata,
    recipe_in_words,
    render_model_card,
    usage_examples,
)
from onnxproof.release.golden import choose_golden, count_within, read_golden, write_golden
from onnxproof.release.tokenizer import settle_tokenizer
from quantize import describe_calibration
from records import (
    CPU,
    make_benchmark,
    make_case,
    make_padding,
    make_prepared,
    make_quantization,
    make_reference,
    make_released_variant,
    make_source,
    make_step,
    make_writing,
)
from release import announce_cache_sizes, announce_weight_files, evaluation_in_config, speed, without_own_folders
from verify_release import check_tokenizer

ROOT = Path(__file__).parents[3]
PADDING = make_padding(values={"input_ids": 7, "attention_mask": 0})


def test_golden_inputs_span_all_lengths():
    lengths = np.array([9, 1, 5, 3, 7])
    assert choose_golden(lengths, 3) == [1, 2, 0]
    assert choose_golden(lengths, 32) == [1, 3, 2, 4, 0]


@pytest.mark.parametrize(("most", "count"), [(1, 1), (10, 1), (29, 1), (30, 2), (60, 3), (99, 3)])
def test_answers_are_kept_while_they_fit(most, count):
    assert count_within([10, 20, 30], most) == count


def test_golden_files_hold_the_chosen_inputs(tmp_path, monkeypatch):
    monkeypatch.setattr("onnxproof.release.golden.GOLDEN_BYTES", 40)
    recorded = Reference(
        manifest=make_reference("sentence-similarity", padding=PADDING, inputs={"max_tokens": 3}),
        inputs=ModelInputs([{"input_ids": np.array(ids)} for ids in ([1, 2, 3], [4], [5, 6])]),
        outputs={
            "last_hidden_state": [np.full((length, 2), length, dtype=np.float32) for length in (3, 1, 2)],
            "sentence_embedding": [np.array([length], dtype=np.float32) for length in (3, 1, 2)],
        },
        texts=["three", "one", "two"],
    )
    facts = write_golden(recorded, tmp_path)
    assert facts == {"count": 3, "answered": 2}
    golden = read_golden(tmp_path)
    assert [item["input_ids"].tolist() for item in golden.inputs.items] == [[4], [5, 6], [1, 2, 3]]
    assert [item["input_ids"].tolist() for item in golden.answered_inputs.items] == [[4], [5, 6]]
    assert golden.inputs.padding_values == PADDING["values"]
    assert [output.tolist() for output in golden.outputs["last_hidden_state"]] == [[[1, 1]], [[2, 2], [2, 2]]]
    assert [output.tolist() for output in golden.outputs["sentence_embedding"]] == [[1], [2]]
    assert golden.texts == ["one", "two", "three"]
    assert golden.manifest == {
        "task": "sentence-similarity",
        "judged_as": "sentence-similarity",
        "label_count": 2,
        "padding": PADDING,
        "max_tokens": 3,
    }


def test_golden_files_hold_what_was_generated_after_inputs_without_room_for_their_answers(tmp_path, monkeypatch):
    monkeypatch.setattr("onnxproof.release.golden.GOLDEN_BYTES", 16)
    monkeypatch.setattr("onnxproof.release.golden.choose_golden", lambda sizes: [0, 1])
    recorded = Reference(
        manifest=make_reference("text-generation", padding=PADDING, inputs={"max_tokens": 99}),
        inputs=ModelInputs([{"input_ids": np.array([index])} for index in range(3)]),
        outputs={"logits": [np.zeros((1, 2), dtype=np.float32)] * 3},
        generated={2: [5, 6]},
        texts=["a", "b", "c"],
    )
    assert write_golden(recorded, tmp_path) == {"count": 3, "answered": 2}
    golden = read_golden(tmp_path)
    assert golden.generated == {2: [5, 6]}
    assert golden.inputs.items[2]["input_ids"].tolist() == [2]


def test_golden_prompts_and_pairs_are_what_the_tokenizer_was_given(tmp_path):
    tokenizer = Tokenizer(WordLevel({"[UNK]": 0, "why": 1, "it": 2, "works": 3}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    for task, limit, entries, ids in (
        ("question-answering", 4, [["why", "it works it works"], ["why", "it"]], [[1, 2, 3, 2], [1, 2]]),
        ("text-generation", 34, ["it works why", "it"], [[2, 3], [2]]),  # cut where 32 tokens have room
    ):
        recorded = Reference(
            manifest=make_reference(task, padding=PADDING, inputs={"max_tokens": limit}),
            inputs=ModelInputs([{"input_ids": np.array(tokens)} for tokens in ids]),
            outputs={"logits": [np.zeros((1, 2), dtype=np.float32)] * 2},
            texts=entries,
        )
        write_golden(recorded, tmp_path)
        check = check_tokenizer(tmp_path, read_golden(tmp_path))
        assert (check.verdict, check.seen) == ("pass", "2 of 2 texts alike")
        write_golden(replace(recorded, texts=["works", *entries[1:]]), tmp_path)
        assert check_tokenizer(tmp_path, read_golden(tmp_path)).verdict == "FAIL"


def test_golden_images_need_no_tokenizer(tmp_path):
    pixels = [np.full((3, 2, 2), value, dtype=np.float32) for value in range(3)]
    recorded = Reference(
        manifest=make_reference("image-classification", padding=PADDING, inputs={}),
        inputs=ModelInputs([{"pixel_values": image} for image in pixels]),
        outputs={"logits": [np.array([value, 1], dtype=np.float32) for value in range(3)]},
    )
    write_golden(recorded, tmp_path)
    golden = read_golden(tmp_path)
    assert golden.texts == []
    assert golden.inputs.feed([0, 2], ["pixel_values"])["pixel_values"].shape == (2, 3, 2, 2)
    np.testing.assert_array_equal(golden.inputs.items[2]["pixel_values"], pixels[2])


def write_tokenizer(folder, **overrides):
    (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 512, "pad_token": "[PAD]"}))
    (folder / "tokenizer.json").write_text(json.dumps({"truncation": None, "padding": None, "model": {}} | overrides))


def test_the_tokenizer_is_settled_on_the_models_own_limit(tmp_path):
    write_tokenizer(tmp_path, truncation={"max_length": 128})
    changed = settle_tokenizer(tmp_path, 256, PADDING)
    assert changed.keys() == {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"}
    assert json.loads((tmp_path / "special_tokens_map.json").read_text()) == {"pad_token": "[PAD]"}
    tokenizer = json.loads((tmp_path / "tokenizer.json").read_text())
    assert tokenizer["truncation"]["max_length"] == 256
    assert tokenizer["padding"]["strategy"] == "BatchLongest"
    assert (tokenizer["padding"]["pad_id"], tokenizer["padding"]["pad_token"]) == (7, "[PAD]")
    assert tokenizer["model"] == {}
    assert settle_tokenizer(tmp_path, 256, PADDING) == {}


def test_a_tokenizer_that_transformers_5_saved_is_said_in_words_that_4_reads_too(tmp_path):
    write_tokenizer(tmp_path)
    newer = {"backend": "tokenizers", "tokenizer_class": "TokenizersBackend", "extra_special_tokens": ["<a>"]}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(newer | {"pad_token": "<pad>", "model_max_length": 9}))
    (tmp_path / "special_tokens_map.json").write_text('{"pad_token": "kept"}')
    settle_tokenizer(tmp_path, 9, PADDING)
    assert json.loads((tmp_path / "tokenizer_config.json").read_text()) == {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "additional_special_tokens": ["<a>"],
        "pad_token": "<pad>",
        "model_max_length": 9,
    }
    assert json.loads((tmp_path / "special_tokens_map.json").read_text()) == {"pad_token": "kept"}


def test_a_tokenizer_without_padding_gets_none(tmp_path):
    write_tokenizer(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"model_max_length": 9}')
    settle_tokenizer(tmp_path, 9, PADDING)
    assert json.loads((tmp_path / "tokenizer.json").read_text())["padding"] is None


def test_the_card_names_the_base_model_and_carries_the_license():
    int8 = make_released_variant("onnx/model_quantized.onnx")
    manifest = make_prepared(
        {"fp32": make_released_variant(), "int8": int8},
        source={"kind": "hub", "repo": "lab/model", "requested_revision": None, "revision": "0" * 40},
    )
    metadata = card_metadata(manifest, {"license": "mit", "language": ["en"], "tags": ["reviews", "onnx"], "x": 1})
    card = ModelCard(f"---\n{yaml.safe_dump(metadata)}---\n# m\n")
    assert card.data.license == "mit"
    assert card.data.base_model == "lab/model"
    assert card.data.pipeline_tag == "text-classification"
    assert card.data.tags.count("onnx") == 1
    assert "reviews" in card.data.tags
    assert "x" not in card.data.to_dict()
    assert metadata["base_model_relation"] == "quantized"
    assert "base_model_relation" not in card_metadata(manifest | {"variants": {"fp32": make_released_variant()}}, {})


@pytest.mark.parametrize(
    ("calibration", "sentence"),
    [
        (("text", "own.txt"), "Calibrated on 8 texts of its user's own, without labels."),
        (("text", CALIBRATION_TEXTS), "Calibrated on 8 texts that come with onnxproof, without labels."),
        (("sound", "absent"), "Calibrated on 8 sounds that were synthesized, without labels."),
        (("image+prompt", "absent"), "Calibrated on 8 images that were drawn, without labels."),
    ],
)
def test_the_card_says_what_a_recipe_was_judged_on(tmp_path, calibration, sentence):
    takes, file = calibration
    (tmp_path / "own.txt").write_text("a text\n")
    described = describe_calibration(8, takes, tmp_path / file)
    assert ("sha256" in described) == (takes == "text"), "no file is named that was not read"
    assert recipe_in_words(make_quantization(calibration=described))[-1] == sentence


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("examples/tiny", "examples/tiny"),
        ("/home/someone/secret/tiny", "tiny"),
        ("../elsewhere/tiny", "tiny"),
        ("/home/someone/secret/tiny/", "tiny"),
    ],
)
def test_a_release_names_no_folder_above_the_models(path, shown):
    source = make_source(path=path)
    assert without_own_folders(source)["path"] == shown
    assert source["path"] == path
    package = make_source(kind="package", package="p", package_version="1", package_path="a/b")
    assert without_own_folders(package) == package


@pytest.mark.parametrize("text", ["", "# no metadata", "---\na: [\n---\n", "---\n- a list\n---\n"])
def test_a_card_without_metadata_that_can_be_read_carries_nothing(tmp_path, text):
    (tmp_path / "README.md").write_text(text)
    assert read_metadata(tmp_path / "README.md") == {}
    assert read_metadata(tmp_path / "absent.md") == {}


def test_the_card_has_the_speed_on_each_kind_of_machine():
    def timed(ms, **facts):
        (case,) = (facts_of := make_released_variant()["benchmark"])["cases"]
        return facts_of | {"cpu": CPU | {"model": "a CPU"}, "cases": [case | {"p50_ms": ms}]} | facts

    def shown(place):
        return place["name"], [(file, case["p50_ms"]) for file, case in place["cases"]]

    times = {"a": 1, "b": 2}
    variants = {file: make_released_variant(file, benchmark=timed(ms)) for file, ms in times.items()}
    assert [shown(place) for place in places_of(variants)] == [("a CPU", [("a", 1), ("b", 2)])]

    for file, facts in variants.items():
        facts["benchmark"] |= {"machine": "icelake", "elsewhere": [timed(times[file] * 10, machine="genoa")]}
    assert [shown(place) for place in places_of(variants)] == [
        ("a CPU (`icelake`)", [("a", 1), ("b", 2)]),
        ("a CPU (`genoa`)", [("a", 10), ("b", 20)]),
    ]


def test_a_release_has_how_fast_its_files_write_beside_fp32_and_no_raw_samples():
    own = [make_step("first_token", 1, 32, 20.0, 40.0), make_step("next_token", 8, 128, 2.0, 3.0)]
    fp32 = [make_step("first_token", 1, 32, 40.0), make_step("next_token", 8, 128, 3.0)]
    released = speed(make_benchmark("q4", [make_case(1, 16, 2.0)], generation=make_writing(own, fp32)))["generation"]
    assert [(step["step"], step["context"], step["p50_ms"], step["fp32_p50_ms"]) for step in released] == [
        ("first_token", 32, 20.0, 40.0),
        ("next_token", 128, 2.0, 3.0),
    ]
    assert all("samples_ms" not in step for step in released)
    assert own[0]["samples_ms"] == [[20.0], [20.0]]
    assert "generation" not in speed(make_benchmark())


def test_the_card_has_a_row_for_each_step_of_writing():
    def steps(ms):
        released = [make_step("first_token", 1, 512, ms), make_step("next_token", 8, 128, ms / 10, 50.0)]
        return [{key: value for key, value in step.items() if key != "samples_ms"} for step in released]

    def timed(ms):
        return make_released_variant()["benchmark"] | {"generation": steps(ms)}

    variants = {file: make_released_variant(file, benchmark=timed(ms)) for file, ms in {"a": 100, "b": 200}.items()}
    card = render_model_card(make_prepared(variants), {}, False, "bert")
    assert "| `b` | first token | 1x512 | 2 | 200.00 | 2560.0 |  |  | 190 |" in card
    assert "| `b` | next token | 8x128 | 2 | 20.00 | 400.0 |  | 2.50 | 190 |" in card
    assert card.count("| first token |") == card.count("| next token |") == 2
    plain = render_model_card(make_prepared({"a": make_released_variant("a")}), {}, False, "bert")
    assert "next token" not in plain


def test_a_recipe_is_told_in_words_and_an_unknown_pass_by_its_name():
    recipe = [{"pass": "smooth", "strength": 0.5}, {"pass": "new", "at": 3}]
    sentences = recipe_in_words(make_quantization(recipe=recipe))
    assert "SmoothQuant" in sentences[0]
    assert "strength 0.5" in sentences[0]
    assert "new" in sentences[1]
    assert "at 3" in sentences[1]


def test_of_many_nodes_a_recipe_tells_the_number():
    recipe = [{"pass": "halve", "keep": [f"node_{number}" for number in range(9)]}, {"pass": "halve", "keep": ["one"]}]
    sentences = recipe_in_words(make_quantization(recipe=recipe))
    assert sentences[0].endswith("`halve`: keep 9 nodes")
    assert sentences[1].endswith("`halve`: keep ['one']")


@pytest.mark.parametrize(
    ("variants", "slow_prompts", "emulated"),
    [(["fp32", "int8"], False, False), (["fp32", "fp16"], False, True), (["q4"], True, False), (["q4f16"], True, True)],
)
def test_the_card_says_what_4_bits_cost_and_how_float16_was_measured(variants, slow_prompts, emulated):
    released = {variant: make_released_variant(f"onnx/{variant}.onnx") for variant in variants}
    card = render_model_card(make_prepared(released), {}, False, "bert")
    assert ("Weights of 4 bits are for size, and for writing one token at a time." in card) == slow_prompts
    assert ("The files in float16 were measured as hardware with float16 computes them" in card) == emulated


@pytest.mark.parametrize(
    ("task", "inputs", "usage", "kind"),
    [
        ("text-classification", {"max_tokens_of_model": 9}, {"use": "reranking"}, "reranking"),
        ("feature-extraction", {"max_tokens_of_model": 9}, {"use": "feature-extraction"}, "feature-extraction"),
        ("feature-extraction", {}, {}, "other"),  # of sounds
        ("feature-extraction", {}, {"use": "sound-features"}, "sound-features"),
        ("image-classification", {}, {}, "image-classification"),
        ("depth-estimation", {}, {}, "other"),
        ("automatic-speech-recognition", {}, {}, "other"),  # without a tokenizer
        ("speech-to-text", {}, {}, "writing"),  # without a tokenizer
        ("zero-shot-object-detection", {}, {}, "other"),
        ("image-to-text", {}, {}, "writing"),  # without a tokenizer
        ("image-text-to-text", {"max_tokens_of_model": 9}, {}, "writing"),
    ],
)
def test_the_card_explains_the_use_that_fits(task, inputs, usage, kind):
    assert kind_of_use(task, {"inputs": inputs, "usage": usage}) == kind
    assert usage_examples(kind, "onnx/model.onnx")


@pytest.mark.parametrize(
    ("task", "model_type"),
    [
        ("text-classification", "bert"),
        ("sentence-similarity", "of no library"),
        ("feature-extraction", "bert"),
        ("text-generation", "gpt2"),
    ],
)
@pytest.mark.parametrize(("file", "dtype"), [("onnx/model.onnx", '"fp32"'), ("onnx/model_quantized.onnx", '"q8"')])
def test_every_task_has_examples_of_its_clients(task, model_type, file, dtype):
    examples = {example["file"]: example["code"] for example in usage_examples(task, file, model_type=model_type)}
    assert {"optimum.py", "onnxruntime.py", "transformers.mjs"} <= examples.keys()
    assert dtype in examples["transformers.mjs"]
    for name, code in examples.items():
        if name.endswith(".py"):
            compile(code, name, "exec")
            assert file.removeprefix("onnx/") in code or name == READS_EXPORT_FILE


@pytest.mark.parametrize(
    ("task", "model_type"),
    [("text-classification", "gpt2"), ("text-generation", "bert"), ("text2text-generation", "pegasus")],
)
def test_no_example_of_transformers_js_for_a_model_that_it_does_not_load(task, model_type):
    files = [example["file"] for example in usage_examples(task, "onnx/model.onnx", model_type=model_type)]
    assert "onnxruntime.py" in files
    assert IN_NODE not in files
    manifest = make_prepared(task=task)
    assert "transformers.js" not in card_metadata(manifest, {}, model_type)["tags"]


def test_examples_that_read_export_json_are_left_out_where_there_is_none():
    files = [example["file"] for example in usage_examples("text-classification", "m.onnx", with_export_file=False)]
    assert READS_EXPORT_FILE not in files
    assert "onnxruntime.py" in files


@pytest.mark.parametrize("client", CLIENTS)
def test_the_card_names_the_versions_that_its_programs_are_run_with(client):
    places = {"optimum": "envs/exporters/optimum.txt", "transformers.mjs": "Makefile"}
    place = "optimum" if "optimum-onnx" in CLIENTS[client].run_with else client
    lock = (ROOT / places.get(place, "envs/locks/run.txt")).read_text()
    for package, version in CLIENTS[client].run_with.items():
        assert re.search(rf"(?m)(^| ){re.escape(package)}(==|@){re.escape(version)}\b", lock), package


def test_sizes_of_qwen2_vls_cache_stand_where_transformers_js_looks_for_them(tmp_path):
    text = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 1}
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"model_type": "qwen2_vl", "text_config": text | {"vocab_size": 9}}))
    assert list(announce_cache_sizes(tmp_path)) == ["config.json"]
    assert json.loads(path.read_text()) == {"model_type": "qwen2_vl", "text_config": text | {"vocab_size": 9}} | text
    assert announce_cache_sizes(tmp_path) == {}
    path.write_text(json.dumps({"model_type": "llava", "text_config": text}))
    assert announce_cache_sizes(tmp_path) == {}


def test_text_part_of_qwen2_5_vl_is_read_alike_from_either_place(tmp_path):
    transformers = pytest.importorskip("transformers")
    flat = {"model_type": "qwen2_5_vl", "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 4}
    flat |= {"num_key_value_heads": 1, "vocab_size": 9, "pad_token_id": 3, "rope_theta": 5000.0, "image_token_id": 7}
    flat |= {"rope_scaling": {"type": "mrope", "mrope_section": [1, 0, 0]}, "tie_word_embeddings": True}
    flat |= {"vision_config": {"depth": 1}, "bos_token_id": 1, "eos_token_id": 2}
    path = tmp_path / "config.json"
    path.write_text(json.dumps(flat))
    before = transformers.AutoConfig.from_pretrained(tmp_path)
    assert list(announce_cache_sizes(tmp_path)) == ["config.json"]
    after = transformers.AutoConfig.from_pretrained(tmp_path)
    assert (after.image_token_id, after.tie_word_embeddings) == (before.image_token_id, before.tie_word_embeddings)
    texts = [config.get_text_config().to_dict() | {"tie_word_embeddings": True} for config in (before, after)]
    assert texts[0] == texts[1]
    assert announce_cache_sizes(tmp_path) == {}


def test_writer_about_images_is_not_tagged_for_a_client_that_does_not_load_it():
    manifest = make_prepared(task="image-text-to-text")
    metadata = card_metadata(manifest, {})
    assert metadata["pipeline_tag"] == "image-text-to-text"
    assert "transformers.js" in metadata["tags"]
    assert "optimum" not in metadata["tags"]


def save_graph_of_one_weight(path, external_data=None):
    weight = numpy_helper.from_array(np.ones(300, np.float32), "weight")
    output = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [300])
    graph = helper.make_graph([helper.make_node("Identity", ["weight"], ["y"])], "g", [], [output], [weight])
    outside = {"save_as_external_data": True, "location": external_data} if external_data else {}
    onnx.save(helper.make_model(graph), path, size_threshold=0, **outside)


def test_graphs_with_weights_outside_are_announced_to_transformers_js(tmp_path):
    (tmp_path / "onnx").mkdir()
    (tmp_path / "config.json").write_text(json.dumps({"transformers.js_config": {"dtype": "q8"}}))
    save_graph_of_one_weight(tmp_path / "onnx/model_quantized.onnx")
    assert announce_weight_files(tmp_path) == {}
    save_graph_of_one_weight(tmp_path / "onnx/model.onnx", "model.onnx_data")
    assert list(announce_weight_files(tmp_path)) == ["config.json"]
    settings = json.loads((tmp_path / "config.json").read_text())["transformers.js_config"]
    assert settings == {"dtype": "q8", "use_external_data_format": {"model.onnx": 1}}


def test_transformers_loads_what_export_json_describes(tmp_path):
    from transformers import BertConfig
    from transformers.exporters import ExportedModel

    BertConfig(num_labels=2).save_pretrained(tmp_path)
    (tmp_path / "onnx").mkdir()
    save_graph_of_one_weight(tmp_path / "onnx/model.onnx", "model.onnx_data")
    weights = (tmp_path / "onnx/model.onnx_data").read_bytes()
    description = describe_traced("BertModel", {}, ["y"], dict)
    write_export_file(description, {"python": "3.11", "torch": "2.13.0"}, "onnx/model.onnx", tmp_path)
    assert (tmp_path / "onnx/model.onnx_data").read_bytes() == weights
    assert b"no weights" in (tmp_path / "onnx/model.onnx.data").read_bytes()
    component = json.loads((tmp_path / "export.json").read_text())["components"]["model"]
    assert component["file"] == "onnx/model.onnx"
    assert component["metadata"]["packages"] == {"torch": "2.13.0"}
    assert "model" in ExportedModel.from_pretrained(tmp_path, device="cpu").components


def test_what_only_the_tokenizers_class_knew_is_written_for_all_clients(tmp_path):
    write_tokenizer(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": true, "model_max_length": 9}')
    known = {"pad_token": "[PAD]", "cls_token": "[CLS]"}
    settle_tokenizer(tmp_path, 9, PADDING | {"special_tokens": known})
    assert json.loads((tmp_path / "tokenizer.json").read_text())["padding"]["pad_token"] == "[PAD]"
    assert json.loads((tmp_path / "special_tokens_map.json").read_text()) == known
    assert json.loads((tmp_path / "tokenizer_config.json").read_text())["pad_token"] == "[PAD]"


def test_a_transformer_in_a_folder_of_its_own_is_lifted_to_the_top(tmp_path):
    (tmp_path / "0_BERT").mkdir()
    for name in ("config.json", "tokenizer.json"):
        (tmp_path / "0_BERT" / name).write_text(f'"{name}"')
    (tmp_path / "config.json").write_text('"not read"')
    pooling = {"type": "sentence_transformers.models.Pooling", "path": "1_Pooling"}
    transformer = {"type": "sentence_transformers.models.Transformer", "path": "0_BERT"}
    (tmp_path / "modules.json").write_text(json.dumps([transformer, pooling]))
    lift_transformer(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "modules.json", "tokenizer.json"]
    assert json.loads((tmp_path / "config.json").read_text()) == "config.json"
    assert json.loads((tmp_path / "modules.json").read_text()) == [transformer | {"path": ""}, pooling]
    lift_transformer(tmp_path)
    assert json.loads((tmp_path / "modules.json").read_text()) == [transformer | {"path": ""}, pooling]


def test_the_evaluation_that_reproduces_a_release_is_the_configured_one_without_own_folders(tmp_path):
    rows = tmp_path / "data" / "rows.jsonl"
    rows.parent.mkdir()
    rows.write_text('{"review": "good", "label": 1}\n')
    asked = {"data": "data/rows.jsonl", "input": "review", "labels": {"pos": 1}, "not_worse_by": 0.02, "new_tokens": 9}
    given = {"models": {"m": {"source": {"path": "."}, "evaluation": asked}}}
    settings = resolve_models(given)["m"]["evaluation"]
    assert evaluation_in_config(settings) == asked
    again = {"models": {"m": {"source": {"path": "."}, "evaluation": evaluation_in_config(settings)}}}
    assert not [problem for problem in problems_of(again, tmp_path) if "evaluation" in problem.path]
    assert resolve_models(again) == resolve_models(given)
    assert evaluation_in_config(settings | {"data": str(rows), "documents": "../notes.csv"}) == {
        **asked,
        "data": "rows.jsonl",
        "documents": "notes.csv",
    }
    on_hub = {"hub": "a/b", "revision": "0" * 40, "file": "data/x.parquet"}
    assert evaluation_in_config(on_hub | {"metric": None}) == on_hub
