import ast
import json
import shutil
import struct
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from messages import check_message
from onnxproof.checkpoint.layout import needed_files
from onnxproof.checkpoint.snapshot import snapshot_problem
from onnxproof.checkpoint.untrusted import is_own_module


def safetensors_bytes(floats: int = 2) -> bytes:
    header = json.dumps({"w": {"dtype": "F32", "shape": [floats], "data_offsets": [0, 4 * floats]}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(4 * floats)


def write(folder: Path, **contents: object) -> None:
    """Write files; ``__`` in a key stands for ``.``, and anything but bytes becomes JSON."""
    for key, content in contents.items():
        path = folder / key.replace("__", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sound text model."""
    place = tmp_path / "model"
    write(place, config__json={}, model__safetensors=safetensors_bytes(), tokenizer__json={})
    return place


# needed_files


SUPPORT = ["config.json", "tokenizer.json"]


def chosen(*names: str) -> list[str]:
    return [name for name in needed_files([*SUPPORT, *names]) if name not in SUPPORT]


def test_takes_configuration_tokenizer_and_documents():
    names = [
        "LICENSE",
        "NOTICE.txt",
        "README.md",
        "bpe.codes",
        "chat_template.jinja",
        "config_sentence_transformers.json",
        "merges.txt",
        "modules.json",
        "preprocessor_config.json",
        "sentencepiece.bpe.model",
        "source.spm",
        "vocab.txt",
    ]
    assert chosen(*names) == names


def test_takes_further_chat_templates_and_nothing_else_from_their_folder():
    names = ["0_Transformer/additional_chat_templates/tools.jinja", "additional_chat_templates/tools.jinja"]
    others = ["additional_chat_templates/config.json", "additional_chat_templates/model.safetensors"]
    others += ["templates/tools.jinja", "additional_chat_templates/more/tools.jinja"]
    assert chosen(*names, *others) == names


def test_leaves_other_formats_training_state_and_code():
    assert (
        chosen(
            ".gitattributes",
            "adapter_model.safetensors",
            "consolidated.safetensors",
            "flax_model.msgpack",
            "modeling_custom.py",
            "model.gguf",
            "onnx/config.json",
            "onnx/model.onnx",
            "openvino/openvino_model.xml",
            "optimizer.pt",
            "original/model.safetensors",
            "original/params.json",
            "rust_model.ot",
            "tf_model.h5",
            "tf_model.h5.index.json",
            "trainer_state.json",
            "training_args.bin",
            "checkpoint-500/model.safetensors",
        )
        == []
    )


SPLIT = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
SPLIT_BIN = ["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"]


@pytest.mark.parametrize(
    ("present", "expected"),
    [
        (["model.safetensors", "pytorch_model.bin"], ["model.safetensors"]),
        (["model.safetensors", "model.fp16.safetensors"], ["model.safetensors"]),
        (["model.safetensors", "model.safetensors.index.json", *SPLIT], ["model.safetensors"]),
        (
            ["model.safetensors.index.json", *SPLIT, "pytorch_model.bin"],
            [*SPLIT, "model.safetensors.index.json"],
        ),
        (["pytorch_model.bin", "tf_model.h5"], ["pytorch_model.bin"]),
        (["pytorch_model.bin.index.json", *SPLIT_BIN], [*SPLIT_BIN, "pytorch_model.bin.index.json"]),
        (SPLIT, []),
        (
            ["model.safetensors.index.json", "model.safetensors-00001-of-00001.safetensors"],
            ["model.safetensors-00001-of-00001.safetensors", "model.safetensors.index.json"],
        ),
    ],
)
def test_takes_weights_in_one_format(present: list[str], expected: list[str]):
    assert chosen(*present) == expected


def test_takes_modules_of_sentence_transformers_each_with_its_own_weights():
    names = ["0_Transformer/pytorch_model.bin", "1_Pooling/config.json", "2_Dense/model.safetensors"]
    others = ["2_Dense/pytorch_model.bin", "0_Transformer/onnx/model.onnx", "0_Transformer/onnx/config.json"]
    assert chosen(*names, *others) == names


@given(st.lists(st.sampled_from(["..", "", ".", "a", "1_Pooling", "config.json", "\\", "c:\\config.json"])))
def test_never_takes_a_name_that_leaves_the_folder(parts: list[str]):
    for name in needed_files(["/".join(parts)]):
        assert not Path(name).is_absolute()
        assert ".." not in Path(name).parts
        assert "\\" not in name


@given(st.permutations([*SUPPORT, "model.safetensors", "pytorch_model.bin", "1_Pooling/config.json"]))
def test_the_order_of_names_does_not_matter(names: list[str]):
    assert needed_files(names) == [
        "1_Pooling/config.json",
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    ]


# snapshot_problem


def test_accepts_a_sound_model(folder: Path):
    assert snapshot_problem(folder) is None


def test_missing_folder_and_file_in_its_place(tmp_path: Path):
    assert snapshot_problem(tmp_path / "none") == "the folder does not exist"
    (tmp_path / "file").write_text("x")
    assert snapshot_problem(tmp_path / "file") == "this is a file, not a folder"


def test_config_missing_unreadable_or_no_object(folder: Path):
    write(folder, config__json=[1])
    assert snapshot_problem(folder) == "config.json must hold a JSON object, not list"
    write(folder, config__json=b"{")
    check_message(str(snapshot_problem(folder)))
    write(folder, config__json=b"\xff\xfe")
    check_message(str(snapshot_problem(folder)))
    (folder / "config.json").unlink()
    assert snapshot_problem(folder) == "there is no config.json"


def test_no_weights_names_the_files_that_count(folder: Path):
    (folder / "model.safetensors").rename(folder / "model.onnx")
    problem = str(snapshot_problem(folder))
    assert problem.startswith("there are no weights")
    for name in ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"):
        assert name in problem


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "is empty"),
        (b"\x01\x02", "too few"),
        (safetensors_bytes()[:-1], "is truncated: it has"),
        (safetensors_bytes() + b"x", "is damaged: it has"),
        (safetensors_bytes()[:20], "is truncated or no safetensors file"),
        (struct.pack("<Q", 1 << 60) + b"{}", "is truncated or no safetensors file"),
        (struct.pack("<Q", 2) + b"{}", "describes no tensors"),
        (struct.pack("<Q", 2) + b"[]", "describes no tensors"),
        (struct.pack("<Q", 2) + b"\xff\xff", "describes no tensors"),
        (struct.pack("<Q", 9) + b'{"w": {}}', "describes no tensors"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "Git LFS pointer"),
    ],
)
def test_damaged_safetensors(folder: Path, content: bytes, expected: str):
    write(folder, model__safetensors=content)
    problem = str(snapshot_problem(folder))
    assert problem.startswith("model.safetensors")
    assert expected in problem


@given(st.integers(min_value=0, max_value=len(safetensors_bytes()) - 1))
def test_every_truncation_is_seen(tmp_path_factory: pytest.TempPathFactory, length: int):
    place = tmp_path_factory.mktemp("truncated")
    write(place, config__json={}, tokenizer__json={}, model__safetensors=safetensors_bytes()[:length])
    assert "model.safetensors" in str(snapshot_problem(place))


def test_metadata_in_the_header_is_no_tensor(folder: Path):
    header = json.dumps(
        {
            "__metadata__": {"format": "pt"},
            "b": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]},
            "a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
        }
    ).encode()
    write(folder, model__safetensors=struct.pack("<Q", len(header)) + header + bytes(8))
    assert snapshot_problem(folder) is None


def test_split_weights_need_every_part(folder: Path):
    shutil.move(folder / "model.safetensors", folder / SPLIT[0])
    index = {"weight_map": {"a": SPLIT[0], "b": SPLIT[1]}}
    write(folder, model__safetensors__index__json=index)
    assert snapshot_problem(folder) == f"model.safetensors.index.json names {SPLIT[1]}, which is missing"
    (folder / SPLIT[1]).write_bytes(safetensors_bytes()[:-1])
    assert str(snapshot_problem(folder)).startswith(f"{SPLIT[1]} is truncated")
    (folder / SPLIT[1]).write_bytes(safetensors_bytes())
    assert snapshot_problem(folder) is None


@pytest.mark.parametrize("weight_map", [{}, [], None, {"a": "../x.safetensors"}, {"a": 1}])
def test_broken_index(folder: Path, weight_map: object):
    (folder / "model.safetensors").unlink()
    write(folder, model__safetensors__index__json={"weight_map": weight_map})
    check_message(str(snapshot_problem(folder)))


def test_pytorch_archives(folder: Path):
    (folder / "model.safetensors").unlink()
    with zipfile.ZipFile(folder / "pytorch_model.bin", "w") as archive:
        archive.writestr("archive/data.pkl", b"x" * 1000)
    refusal = str(snapshot_problem(folder))
    assert refusal.startswith("the weights are a Python pickle (pytorch_model.bin), which can run code")
    assert "allow_pickle: true" in refusal
    assert snapshot_problem(folder, allow_pickle=True) is None
    content = (folder / "pytorch_model.bin").read_bytes()
    write(folder, pytorch_model__bin=content[:500])
    check_message(str(snapshot_problem(folder)))
    write(folder, pytorch_model__bin=b"")
    assert snapshot_problem(folder) == "pytorch_model.bin is empty"


def test_an_archive_that_unpacks_to_more_than_its_size_is_refused(folder: Path):
    (folder / "model.safetensors").unlink()
    with zipfile.ZipFile(folder / "pytorch_model.bin", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data/0", bytes(10_000_000))
    problem = str(snapshot_problem(folder, allow_pickle=True))
    assert problem.startswith("pytorch_model.bin is no file of torch.save")
    assert "unpack to 10000000 bytes" in problem


def test_a_pickle_beside_safetensors_is_not_taken(folder: Path):
    write(folder, pytorch_model__bin=b"never read")
    assert snapshot_problem(folder) is None


def test_a_pickle_in_any_module_is_refused(folder: Path):
    write(folder, modules__json=[module("Transformer", ""), module("Dense", "2_Dense")])
    write(folder / "2_Dense", config__json={"in_features": 1, "out_features": 1}, pytorch_model__bin=b"\x80\x02.")
    check_message(str(snapshot_problem(folder)))


def test_code_of_the_repository_is_refused(folder: Path):
    auto_map = {"AutoModel": "modeling_own.OwnModel", "AutoTokenizer": [None, "tokenization_own.OwnTokenizer"]}
    for name in ("config__json", "tokenizer_config__json", "preprocessor_config__json"):
        write(folder, **{name: {"auto_map": auto_map}})
        problem = str(snapshot_problem(folder))
        assert problem.startswith(f"{name.replace('__', '.')} has the model's own Python code run")
        assert "allow_remote_code: true" in problem
        assert snapshot_problem(folder, allow_remote_code=True) is None
        write(folder, **{name: {}})
    write(folder, modules__json=[module("Transformer", ""), {"type": "own_module.Own", "path": ""}])
    assert str(snapshot_problem(folder)).startswith("modules.json has the model's own Python code run")
    assert snapshot_problem(folder, allow_remote_code=True) is None


def test_code_of_another_repository_is_refused_even_where_code_is_allowed(folder: Path):
    write(folder, config__json={"auto_map": {"AutoModel": "someone/else--modeling.Model"}})
    check_message(str(snapshot_problem(folder, allow_remote_code=True)))


def test_code_is_taken_only_when_asked_for():
    names = ["config.json", "modeling_own.py", "1_Own/own.py", "scripts/train.py", "../evil.py"]
    assert needed_files(names) == ["config.json"]
    assert needed_files(names, with_code=True) == ["1_Own/own.py", "config.json", "modeling_own.py"]


@pytest.mark.parametrize("key", ["vocab_file", "merges_file", "tokenizer_file", "source_spm"])
@pytest.mark.parametrize("value", ["/etc/passwd", "../../secret", "C:\\secret", "a/../../b"])
def test_a_tokenizer_reads_no_file_from_elsewhere(folder: Path, key: str, value: str):
    write(folder, tokenizer_config__json={key: value})
    assert str(snapshot_problem(folder)).startswith(f"tokenizer_config.json: '{key}' is ")
    write(folder, tokenizer_config__json={key: "vocab.txt", "special_tokens_map_file": value})
    assert snapshot_problem(folder) is None


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"vocab_size": 10**12}, "'vocab_size' is 1000000000000, must be between 0 and 16777216"),
        ({"vocab_size": -1}, "'vocab_size' is -1, must be between"),
        ({"hidden_size": 1e300}, "'hidden_size' is 1e+300, must be between"),
        ({"vocab_size": 100, "hidden_size": 10}, "'vocab_size' is 100 at a width of 10, which the weights"),
        ({"num_hidden_layers": 10**6}, "'num_hidden_layers' is 1000000 at a width of 1"),
        ({"num_labels": 10**7}, "'num_labels' is 10000000 at a width of 1"),
        ({"text_config": {"encoder": [{"d_ff": 10**9}]}}, "'d_ff' is 1000000000, must be between"),
        ({"max_position_embeddings": 10**9}, "'max_position_embeddings' is 1000000000, must be"),
    ],
)
def test_absurd_sizes_are_refused(folder: Path, config: dict, told: str):
    write(folder, config__json=config)
    assert str(snapshot_problem(folder)).startswith(f"config.json: {told}")


def test_an_absurd_dense_layer_is_refused(folder: Path):
    write(folder, modules__json=[module("Transformer", ""), module("Dense", "2_Dense")])
    write(folder / "2_Dense", config__json={"in_features": 10**6, "out_features": 10**6})
    check_message(str(snapshot_problem(folder)))


def test_a_configuration_of_gigabytes_is_not_read(folder: Path):
    with (folder / "config.json").open("r+b") as stream:
        stream.truncate(10**10)  # sparse: takes no disk
    check_message(str(snapshot_problem(folder)))


@pytest.mark.parametrize(
    "vocabulary",
    [
        ["vocab.txt"],
        ["vocab.json", "merges.txt"],
        ["spiece.model"],
        ["sentencepiece.bpe.model"],
        ["tokenizer.model"],
    ],
)
def test_a_text_model_needs_a_tokenizer(folder: Path, vocabulary: list[str]):
    (folder / "tokenizer.json").unlink()
    assert str(snapshot_problem(folder)).startswith("there is no tokenizer")
    for name in vocabulary[:-1]:
        (folder / name).write_text("x")
        assert str(snapshot_problem(folder)).startswith("there is no tokenizer")
    (folder / vocabulary[-1]).write_text("x")
    assert snapshot_problem(folder) is None


def test_models_of_images_and_sound_need_no_vocabulary_and_those_of_bytes_are_refused(folder: Path):
    (folder / "tokenizer.json").unlink()
    write(folder, tokenizer_config__json={"tokenizer_class": "BertTokenizer"})
    assert snapshot_problem(folder) is not None
    write(folder, tokenizer_config__json={"tokenizer_class": "ByT5Tokenizer"})
    check_message(str(snapshot_problem(folder)))
    (folder / "tokenizer_config.json").unlink()
    write(folder, preprocessor_config__json={})
    assert snapshot_problem(folder) is None


def module(kind: str, path: str) -> dict[str, str]:
    return {"name": kind, "type": f"sentence_transformers.models.{kind}", "path": path}


def test_the_transformer_may_be_in_a_subfolder(folder: Path, tmp_path: Path):
    place = tmp_path / "sentence"
    place.mkdir()
    shutil.move(folder, place / "0_Transformer")
    assert snapshot_problem(place) == "there is no config.json"
    write(place, modules__json=[module("Transformer", "0_Transformer"), module("Pooling", "1_Pooling")])
    assert snapshot_problem(place) == "there is no 1_Pooling/config.json"
    write(place / "1_Pooling", config__json={})
    assert snapshot_problem(place) is None
    (place / "0_Transformer/tokenizer.json").rename(place / "tokenizer.json")
    assert snapshot_problem(place) is None
    (place / "0_Transformer/model.safetensors").unlink()
    check_message(str(snapshot_problem(place)))


def test_a_module_without_settings_needs_no_folder(folder: Path):
    modules = [module("Transformer", ""), module("Pooling", ""), module("Normalize", "2_Normalize")]
    write(folder, modules__json=modules)
    assert snapshot_problem(folder) is None


#: What the versions 2 to 6 write as the type of a module, and what is code of a repository.
TYPES = (
    "sentence_transformers.models.Transformer",
    "sentence_transformers.models.Transformer.Transformer",
    "sentence_transformers.models.Asym",
    "sentence_transformers.base.modules.transformer.Transformer",
    "sentence_transformers.base.modules.normalize.Normalize",
    "sentence_transformers.sentence_transformer.modules.pooling.Pooling",
    "sentence_transformers.sparse_encoder.models.SpladePooling.SpladePooling",
)
FOREIGN_TYPES = ("modeling.Own", "Own", "sentence_transformers", "sentence_transformers_own.Pooling", ".models.Pooling")


def types_of_this_version() -> list[str]:
    """Return the classes that the installed sentence-transformers defines in its packages of modules."""
    spec = find_spec("sentence_transformers")
    root = Path(str(spec.origin)).parent
    return sorted(
        ".".join(("sentence_transformers", *path.relative_to(root).with_suffix("").parts, node.name))
        for path in root.glob("*/modules/*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ClassDef)
    )


def test_the_modules_of_every_version_are_no_code_of_the_repository():
    types = types_of_this_version()
    assert len(types) > 20
    assert [kind for kind in (*types, *TYPES) if not is_own_module(kind)] == []
    assert [kind for kind in FOREIGN_TYPES if is_own_module(kind)] == []


SETTINGS = {
    "CNN": ("cnn_config.json", {"in_embedding_dimension": 8, "out_channels": 4, "kernel_sizes": [1, 3]}),
    "LayerNorm": ("config.json", {"dimension": 8}),
    "WeightedLayerPooling": ("config.json", {"embedding_dimension": 8, "num_hidden_layers": 12}),
}


@pytest.mark.parametrize("kind", SETTINGS)
def test_a_module_needs_its_settings_and_their_sizes_must_fit_its_weights(folder: Path, kind: str):
    name, settings = SETTINGS[kind]
    place = folder / f"1_{kind}"
    own = f"sentence_transformers.sentence_transformer.modules.{kind.lower()}.{kind}"
    own_module = {"name": "own", "type": own, "path": place.name}
    pooled = [own_module, module("Pooling", "")] if kind != "LayerNorm" else [module("Pooling", ""), own_module]
    write(folder, modules__json=[module("Transformer", ""), *pooled])
    assert snapshot_problem(folder) == f"there is no {place.name}/{name}"
    write(place, model__safetensors=safetensors_bytes(100))
    write(place, **{name.replace(".", "__"): settings})
    assert snapshot_problem(folder) is None
    for key, value in settings.items():
        if kind == "WeightedLayerPooling" and key == "embedding_dimension":
            continue  # nothing is allocated by it
        absurd = [10**12] if isinstance(value, list) else 10**12
        write(place, **{name.replace(".", "__"): settings | {key: absurd}})
        check_message(str(snapshot_problem(folder)))
    write(place, **{name.replace(".", "__"): {}})
    assert snapshot_problem(folder) is None


def test_what_sentence_transformers_saves_is_taken_whole(tmp_path: Path):
    """By the installed version, with the transformer at the top and in a folder of its own."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Dense, Normalize, Transformer
    from sentence_transformers.sentence_transformer.modules import CNN, LayerNorm, Pooling

    from tiny_models import save_encoder

    save_encoder(tmp_path / "encoder")
    encoder = Transformer(str(tmp_path / "encoder"))
    width = encoder.get_embedding_dimension()
    pooled = [Pooling(width), Dense(width, 8), LayerNorm(8), Normalize()]
    for number, modules in enumerate([pooled, [CNN(width, 8, [1, 3]), Pooling(16)]]):
        for at_the_top in (True, False):
            encoder.save_in_root = at_the_top
            folder = tmp_path / f"{number}{at_the_top}"
            SentenceTransformer(modules=[encoder, *modules], device="cpu").save(str(folder))
            names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
            assert needed_files(names) == names
            assert snapshot_problem(folder) is None
            assert ("0_Transformer/config.json" in names) is not at_the_top


@pytest.mark.parametrize(
    "modules", [{}, ["x"], [{"path": "a"}], [module("Pooling", "../a")], [module("Transformer", "/a")]]
)
def test_malformed_modules(folder: Path, modules: object):
    write(folder, modules__json=modules)
    check_message(str(snapshot_problem(folder)))
