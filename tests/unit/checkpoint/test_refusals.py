"""Folders that a loader would answer for, wrongly and without a word: each refused by one line that says why."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from onnxproof.checkpoint.config_values import ACTIVATIONS, known_keys
from onnxproof.checkpoint.reading import Checkpoint
from onnxproof.checkpoint.refusals import refusals
from onnxproof.checkpoint.sentence import OTHER_MODULES, POOLING_MODES, SERVED_MODULES, SIMILARITIES
from onnxproof.checkpoint.snapshot import problems_of, snapshot_problem
from onnxproof.checkpoint.tokenizers import CLASSES_OF_TYPES, MISREAD_WITHOUT_FILE, PYTHON_ONLY
from onnxproof.tasks.architectures import SERVED
from onnxproof.tasks.model_types import model_takes

Files = dict[str, Any]
PLACE = "sentence_transformers.models"
CONFIG = {"model_type": "bert", "architectures": ["BertModel"], "vocab_size": 8, "hidden_size": 4}
TOKENIZER = {
    "added_tokens": [{"id": 0, "content": "[PAD]", "special": True}],
    "model": {"type": "WordPiece", "vocab": {"[PAD]": 0, "[CLS]": 1, "[SEP]": 2, "a": 3, "b": 4}},
    "post_processor": {"special_tokens": {"[CLS]": {"ids": [1]}, "[SEP]": {"ids": [2]}}},
}


def weights(*names: str, dtype: str = "F32") -> bytes:
    """Return a safetensors file with these tensors, of 64 elements each."""
    size = {"F32": 256, "I32": 256, "U8": 64}[dtype]
    header = {
        name: {"dtype": dtype, "shape": [64], "data_offsets": [size * number, size * (number + 1)]}
        for number, name in enumerate(names)
    }
    head = json.dumps(header).encode()
    return struct.pack("<Q", len(head)) + head + bytes(size * len(names))


SOUND: Files = {
    "config.json": CONFIG,
    "tokenizer.json": TOKENIZER,
    "tokenizer_config.json": {"pad_token": "[PAD]", "cls_token": "[CLS]"},
    "model.safetensors": weights("embeddings.word_embeddings.weight"),
}


def module(number: int, kind: str, path: str | None = None) -> Files:
    return {"idx": number, "name": str(number), "path": f"{number}_{kind}" if path is None else path,
            "type": f"{PLACE}.{kind}"}  # fmt: skip


SENTENCES = SOUND | {
    "modules.json": [module(0, "Transformer", ""), module(1, "Pooling"), module(2, "Dense"), module(3, "Normalize")],
    "1_Pooling/config.json": {"word_embedding_dimension": 4, "pooling_mode_mean_tokens": True},
    "2_Dense/config.json": {
        "in_features": 4,
        "out_features": 4,
        "activation_function": "torch.nn.modules.linear.Identity",
    },
    "2_Dense/model.safetensors": weights("linear.weight"),
    "sentence_bert_config.json": {"max_seq_length": 16, "do_lower_case": False},
    "config_sentence_transformers.json": {"__version__": {"transformers": "4.1"}, "similarity_fn_name": "dot"},
}


RERANKER: Files = SOUND | {
    "config.json": CONFIG | {"architectures": ["BertForSequenceClassification"], "id2label": {"0": "score"}},
    "modules.json": [module(0, "Transformer", "")],
    "sentence_bert_config.json": {"transformer_task": "sequence-classification"},
    "config_sentence_transformers.json": {"model_type": "CrossEncoder"},
}


def write(folder: Path, files: Files) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            path.unlink(missing_ok=True)
        else:
            path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return folder


def with_config(**keys: Any) -> Files:
    return SOUND | {"config.json": CONFIG | keys}


def with_json(name: str, base: Files = SENTENCES, **keys: Any) -> Files:
    return base | {name: base.get(name, {}) | keys}


@pytest.mark.parametrize("files", [SOUND, SENTENCES, RERANKER], ids=["bert", "sentences", "reranker"])
def test_a_sound_model_is_accepted(tmp_path: Path, files: Files):
    assert snapshot_problem(write(tmp_path, files)) is None


#: Each with the whole message in ``refusals.txt``.
REFUSED: list[tuple[str, Files]] = [
    # adapters
    ("an adapter beside", SOUND | {"adapter_config.json": {"peft_type": "LORA"}}),
    ("an adapter alone", {"adapter_config.json": {}, "adapter_model.safetensors": weights("x")}),
    ("its weights alone", SOUND | {"adapter_model.bin": b"x"}),
    ("an adapter inside", SOUND | {"model.safetensors": weights("a.lora_A.weight")}),
    ("PEFT's names", SOUND | {"model.safetensors": weights("base_model.model.a")}),
    # quantized
    *(
        (method, with_config(quantization_config={"quant_method": method}))
        for method in ("gptq", "awq", "bitsandbytes", "fp8", "compressed-tensors", "mxfp4", "hqq", "torchao")
    ),
    (
        "quantized inside",
        with_config(text_config={"quantization_config": {"bits": 4}}),
    ),
    ("quantized, no method", with_config(quantization_config={})),
    ("a quantizer's file", SOUND | {"quantize_config.json": {"bits": 4}}),
    ("packed weights", SOUND | {"model.safetensors": weights("a.qweight", dtype="I32")}),
    ("8-bit weights", SOUND | {"model.safetensors": weights("a.weight", "a.SCB")}),
    # names of weights
    ("torch.compile", SOUND | {"model.safetensors": weights("_orig_mod.a", "_orig_mod.b")}),
    ("DataParallel", SOUND | {"model.safetensors": weights("module.a")}),
    # config.json
    ("a number as text", with_config(num_hidden_layers="6")),
    ("half a layer", with_config(num_hidden_layers=1.5)),
    ("true for a number", with_config(hidden_size=True)),
    ("no heads", with_config(num_attention_heads=0)),
    ("no such function", with_config(hidden_act="geluu")),
    ("a function inside", with_config(vision_config={"hidden_act": "x"})),
    ("a number as words", with_config(layer_norm_eps="1e-12")),
    ("yes for true", with_config(is_decoder="yes")),
    ("a hole", with_config(id2label={"0": "a", "2": "b"})),
    ("labels in a list", with_config(id2label=["a", "b"])),
    ("a label of an object", with_config(id2label={"0": {}})),
    ("two numbers of classes", with_config(num_labels=3, id2label={"0": "a", "1": "b"})),
    ("an unknown problem", with_config(problem_type="multi_label")),
    ("one class of one", with_config(problem_type="single_label_classification", id2label={"0": "a"})),
    ("an unknown type", with_config(torch_dtype="float12")),
    ("a slip", with_config(num_hiden_layers=2)),
    ("a slip inside", with_config(text_config={"hidden_sizee": 2})),
    ("architectures as text", with_config(architectures="BertModel")),
    # kinds of sentence-transformers
    (
        "sparse",
        with_json("config_sentence_transformers.json", model_type="SparseEncoder"),
    ),
    *((kind, SENTENCES | {"modules.json": [module(0, "Transformer", ""), module(1, kind)]}) for kind in OTHER_MODULES),
    ("words alone", {"modules.json": [module(0, "StaticEmbedding", "")]}),
    ("of the future", SENTENCES | {"modules.json": [module(0, "Magic", "")]}),
    ("no pooling", SENTENCES | {"modules.json": [module(0, "Transformer", "")]}),
    (
        "too early",
        SENTENCES
        | {"modules.json": [module(0, "Transformer", ""), module(1, "Normalize"), module(2, "Pooling", "1_Pooling")]},
    ),
    ("pooling first", SENTENCES | {"modules.json": [module(1, "Pooling", "")]}),
    (
        "one name twice",
        SENTENCES | {"modules.json": [module(0, "Transformer", ""), module(1, "Pooling") | {"name": "0"}]},
    ),
    (
        "a folder of its own name",
        SENTENCES
        | {"modules.json": [module(0, "Transformer", ""), module(1, "Pooling", "pooling")]}
        | {"pooling/config.json": {}},
    ),
    # settings of modules
    ("no such mode", with_json("1_Pooling/config.json", pooling_mode="median")),
    (
        "a mode of the future",
        with_json("1_Pooling/config.json", pooling_mode_median=True),
    ),
    ("pooling by a word", with_json("1_Pooling/config.json", include_prompt="no")),
    (
        "an own function",
        with_json("2_Dense/config.json", activation_function="my.Swish"),
    ),
    (
        "a function of torch",
        with_json("2_Dense/config.json", activation_function="torch.nn.functional.gelu"),
    ),
    (
        "Dense of tokens",
        with_json("2_Dense/config.json", module_input_name="token_embeddings"),
    ),
    ("Dense without weights", SENTENCES | {"2_Dense/model.safetensors": None}),
    (
        "another task",
        with_json("sentence_bert_config.json", transformer_task="fill-mask"),
    ),
    ("unknown setting", with_json("sentence_bert_config.json", magic=1)),
    ("no length", with_json("sentence_bert_config.json", max_seq_length="long")),
    ("options", with_json("sentence_bert_config.json", config_args={"num_hidden_layers": 2})),
    ("images", with_json("sentence_bert_config.json", modality_config={"image": {}})),
    # settings of encode()
    (
        "no such prompt",
        with_json("config_sentence_transformers.json", prompts={"q": "q: "}, default_prompt_name="p"),
    ),
    ("prompts in a list", with_json("config_sentence_transformers.json", prompts=["q: "])),
    (
        "unknown similarity",
        with_json("config_sentence_transformers.json", similarity_fn_name="maxsim"),
    ),
    ("cut to nothing", with_json("config_sentence_transformers.json", truncate_dim=0)),
    (
        "prompts left out",
        with_json("1_Pooling/config.json", include_prompt=False)
        | {"config_sentence_transformers.json": {"prompts": {"q": "q: "}}},
    ),
    # tokenizers
    ("a token beyond", with_config(vocab_size=4)),
    (
        "a new token",
        with_json("tokenizer_config.json", with_config(vocab_size=5), pad_token="<pad>"),
    ),
    ("a side", with_json("tokenizer_config.json", SOUND, padding_side="up")),
    ("no limit", with_json("tokenizer_config.json", SOUND, model_max_length="512")),
    (
        "no tokens fed",
        with_json("tokenizer_config.json", SOUND, model_input_names=["attention_mask"]),
    ),
    ("a token of numbers", with_json("tokenizer_config.json", SOUND, cls_token=[1])),
    *(
        (
            f"{name} alone",
            SOUND | {"tokenizer.json": None, file: b"x", "tokenizer_config.json": {"tokenizer_class": name}},
        )
        for name, file in (
            ("MarianTokenizer", "spm.model"),
            ("EsmTokenizer", "vocab.txt"),
            ("DebertaV2TokenizerFast", "spm.model"),
        )
    ),
    ("a word for true", with_json("tokenizer_config.json", SOUND, do_lower_case="no")),
    ("a class of a number", with_json("tokenizer_config.json", SOUND, tokenizer_class=5)),
    ("inputs of a number", with_json("tokenizer_config.json", SOUND, model_input_names=5)),
    # rerankers
    ("a reranker of two modules", RERANKER | {"modules.json": [module(0, "Transformer", ""), module(1, "Normalize")]}),
    ("a reranker of vectors", with_json("sentence_bert_config.json", RERANKER, transformer_task="feature-extraction")),
    ("a reranker in lower case", with_json("sentence_bert_config.json", RERANKER, do_lower_case=True)),
    (
        "a prompt for pairs",
        with_json("config_sentence_transformers.json", RERANKER, prompts={"q": "query: "}, default_prompt_name="q"),
    ),
]


MESSAGES = dict(
    line.split(": ", 1) for line in Path(__file__).with_name("refusals.txt").read_text(encoding="utf-8").splitlines()
)


def test_every_refusal_has_one_message():
    assert list(MESSAGES) == [name for name, _ in REFUSED]


@pytest.mark.parametrize(("name", "files"), REFUSED, ids=[case[0] for case in REFUSED])
def test_what_would_be_ignored_is_refused_by_one_line(tmp_path: Path, name: str, files: Files):
    assert snapshot_problem(write(tmp_path, files)) == MESSAGES[name]


@pytest.mark.parametrize(
    "files",
    [
        case[1]
        for case in REFUSED
        if "model.safetensors" not in case[1] or case[1]["model.safetensors"] is SOUND["model.safetensors"]
    ],
)
def test_the_same_is_told_before_the_weights_are_fetched(files: Files):
    present = {name: content for name, content in files.items() if content is not None}
    small = {name: json.dumps(content).encode() for name, content in present.items() if not isinstance(content, bytes)}
    listed = Checkpoint(files=small, sizes=dict.fromkeys(present, 1000))
    assert list(problems_of(listed))


VIT = {"model_type": "vit", "architectures": ["ViTForImageClassification"], "num_channels": 3, "hidden_size": 4}


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"image_mean": [0.5]}, None),
        ({"image_mean": [0.5] * 4}, "'image_mean' has 4 values, and config.json a 'num_channels' of 3"),
        ({"image_std": [0.5, 0.0, 0.5]}, "'image_std' is [0.5, 0.0, 0.5], must be above 0"),
        ({"image_std": "half"}, "'image_std' is 'half', must be a number a channel"),
        ({"size": -1}, "'size' is -1, must be positive numbers of pixels"),
        ({"size": {"height": 32, "width": "32"}}, "must be positive numbers of pixels"),
        ({"do_resize": "yes"}, "'do_resize' is 'yes', must be true or false"),
        (
            {"image_mean": [0.5] * 3, "image_std": [0.5]},
            "'image_mean' and 'image_std' have {'image_mean': 3, 'image_std': 1} values: they must agree",
        ),
    ],
)
def test_an_image_processor_must_agree_with_itself_and_the_model(tmp_path: Path, settings: Files, told: str | None):
    files = {"config.json": VIT, "preprocessor_config.json": settings, "model.safetensors": weights("a")}
    problem = snapshot_problem(write(tmp_path, files))
    assert problem is None if told is None else told in str(problem)


def test_keys_that_nothing_reads_are_let_through(tmp_path: Path):
    """Such are in many published configurations."""
    keys = (
        "gradient_checkpointing",
        "_num_labels",
        "finetuning_task",
        "directionality",
        "pooler_fc_size",
        "xla_device",
    )
    keys += ("output_past", "language", "name", "torchscript", "num_hidden_groups", "n_ctx", "summary_type")
    assert snapshot_problem(write(tmp_path, with_config(**dict.fromkeys(keys, 1)))) is None


def test_all_refusals_of_a_model_are_told(tmp_path: Path):
    files = with_config(hidden_act="x", quantization_config={"quant_method": "awq"}) | {"adapter_config.json": {}}
    told = refusals(Checkpoint(write(tmp_path, files)))
    assert len(told) == 3
    assert [any(word in line for line in told) for word in ("adapter", "awq", "hidden_act")] == [True] * 3


def test_every_pooling_mode_is_accepted_alone_and_together(tmp_path: Path):
    for mode in (*POOLING_MODES, list(POOLING_MODES)):
        files = SENTENCES | {"1_Pooling/config.json": {"embedding_dimension": 4, "pooling_mode": mode}}
        assert snapshot_problem(write(tmp_path, files)) is None


def test_settings_of_encode_are_read(tmp_path: Path):
    files = with_json(
        "config_sentence_transformers.json",
        prompts={"query": "find: ", "none": None},
        default_prompt_name="query",
        truncate_dim=2,
        similarity_fn_name=None,
    )
    settings = Checkpoint(write(tmp_path, files)).sentence_settings
    assert settings.prompts == {"query": "find: ", "document": "", "none": ""}
    assert (settings.default_prompt, settings.truncate_dim, settings.similarity) == ("find: ", 2, "cosine")
    assert settings.include_prompt


def test_each_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write(tmp_path, SENTENCES)
    read: list[str] = []
    original = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda self: (read.append(self.name), original(self))[1])
    checkpoint = Checkpoint(tmp_path)
    assert list(problems_of(checkpoint)) == []
    assert checkpoint.config is checkpoint.config
    counts = {name: read.count(name) for name in ("modules.json", "tokenizer.json", "tokenizer_config.json")}
    assert set(counts.values()) == {1}


def test_the_transformer_is_where_the_modules_say(tmp_path: Path):
    inside = {f"0_BERT/{name}": content for name, content in SOUND.items()}
    others = {name: content for name, content in SENTENCES.items() if name not in SOUND}
    write(tmp_path, inside | others | {"0_BERT/sentence_bert_config.json": {"max_seq_length": 16}})
    entries = [module(0, "Transformer", "0_BERT"), module(1, "Pooling"), module(2, "Dense")]
    write(tmp_path, {"modules.json": entries, "config.json": CONFIG | {"hidden_size": 999}})
    checkpoint = Checkpoint(tmp_path)
    assert list(problems_of(checkpoint)) == []
    assert checkpoint.config == CONFIG
    assert checkpoint.transformer_folder == tmp_path / "0_BERT"


# Held against the installed libraries


def test_all_activation_functions_of_transformers_are_known():
    from transformers.activations import ACT2CLS

    assert set(ACT2CLS) == ACTIVATIONS


def test_all_modules_of_sentence_transformers_are_served_or_refused_by_name():
    import ast
    from importlib.util import find_spec

    root = Path(str(find_spec("sentence_transformers").origin)).parent  # type: ignore[union-attr]
    classes = {
        node.name
        for path in root.glob("*/modules/*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ClassDef) and any("Module" in ast.unparse(base) for base in node.bases)
    }
    abstract = {"Module", "InputModule", "BaseTokenPooling", "TiedTranspose"}
    assert classes - abstract - SERVED_MODULES.keys() - OTHER_MODULES.keys() == set()


def test_all_pooling_modes_and_similarities_of_sentence_transformers_are_known():
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    assert POOLING_MODES == Pooling.POOLING_MODES
    assert set(SIMILARITIES) == set(SentenceTransformer.SUPPORTED_SIMILARITY_FN_NAMES)


def test_the_tokenizers_that_run_in_python_alone_are_those_of_transformers():
    import transformers
    from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING_NAMES
    from transformers.tokenization_utils_tokenizers import TokenizersBackend

    named = {name for name in TOKENIZER_MAPPING_NAMES.values() if name and hasattr(transformers, name)}
    alone = {name for name in named if not issubclass(getattr(transformers, name), TokenizersBackend)}
    assert alone == PYTHON_ONLY
    listed = PYTHON_ONLY | MISREAD_WITHOUT_FILE
    assert {kind: TOKENIZER_MAPPING_NAMES[kind] for kind in CLASSES_OF_TYPES} == CLASSES_OF_TYPES
    texts = {kind for kind, name in TOKENIZER_MAPPING_NAMES.items() if name in listed and model_takes(kind) != "sound"}
    served = set().union(*SERVED.values())
    assert {kind for kind in texts & served if model_takes(kind) in ("text", "image+texts")} == set(CLASSES_OF_TYPES)


@pytest.mark.slow
def test_the_known_keys_are_those_of_transformers():
    import sys

    sys.path.insert(0, str(Path(__file__).parents[3] / "tools"))
    import list_config_keys

    assert list_config_keys.known_keys() == known_keys()
