"""What an audit says of files that public tools made, and of the same files damaged."""

import json
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import made_once
from jsonschema import validate

import audit
import published
from architectures import save_whisper
from audit_public_tools import export_with_optimum
from kinds import save_case
from onnxproof.config.resolve import resolve_models
from onnxproof.inputs.texts import EVALUATION_TEXTS
from project import ROOT, make_tiny_project
from published import INPUTS

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # of the exporter, about its own future

STARS = Path(__file__).parents[2] / "examples" / "star-rating-tiny"
HELD_OUT = STARS.parent / "star-rating-heldout.jsonl"
LIMITS = resolve_models({"models": {"m": {"source": {"path": "."}}}})["m"]["parity"]["thresholds"]
TEXTS = 60


def few_texts(source: Path, target: Path) -> Path:
    """Write the first texts of a file, and two of very different lengths."""
    lines = source.read_text(encoding="utf-8").splitlines()[:TEXTS]
    target.write_text("\n".join([*lines, json.dumps({"text": "Not good."})]) + "\n", encoding="utf-8")
    return target


def record(name: str, model: Path, texts: Path, folder: Path) -> None:
    """Record an original as an audit does."""
    asked = SimpleNamespace(task=None, texts=few_texts(texts, folder / "texts.jsonl"), batch_size=8, threads=1)
    audit.ask_original(name, ["--path", str(model)], folder, asked)


def prepare(name: str, model: Path, texts: Path, folder: Path) -> Path:
    """Record an original below ``original``; return ``published``, with all but the ONNX files of public tools."""
    (folder / "original").mkdir()
    record(name, model, texts, folder / "original")
    published.write_support(model, folder / "published")
    return folder / "published"


@pytest.fixture(scope="session")
def stars(tmp_path_factory) -> Path:
    """The recorded answers of the classifier, below ``original``, and files of public tools, in ``published``."""

    def make(folder: Path) -> None:
        make_stars(prepare("stars", STARS, HELD_OUT, folder), folder / "scratch")

    return made_once(tmp_path_factory, "audited-stars", make)


def make_stars(made: Path, scratch: Path) -> None:
    """Write what public tools make of the classifier."""
    from onnxruntime.quantization import QuantType

    onnx = made / "onnx"
    plain = onnx / "model.onnx"
    published.export(STARS, plain)
    published.export(STARS, onnx / "model_opset14.onnx", opset=14)
    published.to_float16(plain, onnx / "model_fp16.onnx")
    published.to_float16(plain, onnx / "model_float16_io32.onnx", keep_io_types=True)
    published.quantize_dynamic(plain, onnx / "model_quantized.onnx")
    published.quantize_dynamic(plain, onnx / "model_int8.onnx", per_channel=True)
    published.quantize_dynamic(plain, onnx / "model_qint8_reduced.onnx", reduce_range=True)
    published.quantize_dynamic(plain, onnx / "model_uint8.onnx", weight_type=QuantType.QUInt8)
    published.to_four_bits(plain, onnx / "model_q4.onnx")
    published.to_four_bits(plain, onnx / "model_int4_block16.onnx", block_size=16)
    published.to_float16(onnx / "model_q4.onnx", onnx / "model_q4f16.onnx")
    published.optimize(plain, onnx / "model_optimized.onnx", heads=4, width=64)
    published.save_with_data(plain, onnx / "model_with_data.onnx")
    published.renamed(
        plain,
        onnx / "winml.onnx",
        {"input_ids": "ids:0", "attention_mask": "input_mask:0", "token_type_ids": "segment_ids:0", "logits": "y"},
    )
    published.with_int32_inputs(plain, onnx / "model_int32.onnx")
    published.export(STARS, onnx / "cpu-fp32" / "classifier.onnx", output="scores", opset=18)


def audited(folder: Path, results: Path, output: Path) -> dict:
    """Return the record of an audit that was run as a user runs it."""
    status = audit.main([str(folder), "--results", str(results), "--output", str(output)])
    found = json.loads((output / "audit.json").read_text())
    assert status == (0 if found["sound"] else audit.WRONG)
    assert (output / "audit.md").read_text().startswith("# ")
    return found


def kinds(findings: list[dict], *severities: str) -> set[str]:
    return {each["kind"] for each in findings if each["severity"] in (severities or ("wrong",))}


@pytest.fixture(scope="session")
def stars_audit(stars, tmp_path_factory) -> dict:
    return audited(stars / "published", stars / "original", tmp_path_factory.mktemp("stars-audit"))


def plain_probabilities(path: Path, texts: list[str], size: int) -> np.ndarray:
    """Return what a file answers to texts in padded batches, with onnxruntime and transformers' tokenizer alone."""
    import onnxruntime
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(STARS)
    session = onnxruntime.InferenceSession(path)
    rows = []
    for start in range(0, len(texts), size):
        made = tokenizer(texts[start : start + size], padding=True, truncation=True, return_tensors="np")
        types = [np.int32 if value.type == "tensor(int32)" else np.int64 for value in session.get_inputs()]
        feed = {
            value.name: made[name].astype(kind)
            for value, name, kind in zip(session.get_inputs(), INPUTS, types, strict=True)
        }
        rows.append(session.run(None, feed)[0].astype(np.float64))
    logits = np.concatenate(rows)
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    return odds / odds.sum(axis=1, keepdims=True)


def test_verdicts_are_those_of_transformers_own_pipeline(stars, stars_audit):
    from transformers import pipeline

    lines = HELD_OUT.read_text(encoding="utf-8").splitlines()[:TEXTS]
    texts = [json.loads(line)["text"] for line in lines]
    answers = pipeline("text-classification", model=str(STARS), top_k=None)(texts)
    labels = list(json.loads((STARS / "config.json").read_text())["id2label"].values())
    expected = np.array(
        [[{each["label"]: each["score"] for each in row}[label] for label in labels] for row in answers]
    )
    assert len(stars_audit["files"]) == 16
    for file in stars_audit["files"]:
        limits = LIMITS[file["judged_as"]]
        holds = True
        for size in (1, 8):
            found = plain_probabilities(stars / "published" / file["name"], texts, size)
            holds &= (found.argmax(1) == expected.argmax(1)).mean() >= limits["top1_agreement"]
            holds &= np.abs(found - expected).max() <= limits["max_probability_diff"]
        assert (file["verdict"] == "sound") == holds, (file["name"], file["findings"])
    assert sum(file["verdict"] == "sound" for file in stars_audit["files"]) >= 12


def test_names_and_contents_of_sound_files(stars_audit):
    seen = {Path(file["name"]).name: (file["promised"], file["held"]) for file in stars_audit["files"]}
    assert seen["model.onnx"] == (None, "fp32")
    assert seen["model_fp16.onnx"] == ("fp16", "fp16")
    assert seen["model_quantized.onnx"] == ("int8", "int8")
    assert seen["model_uint8.onnx"] == ("uint8", "int8")
    assert seen["model_q4.onnx"] == ("q4", "q4")
    assert seen["model_q4f16.onnx"] == ("q4f16", "q4f16")
    assert all("name" not in kinds(file["findings"]) for file in stars_audit["files"])


def test_other_names_are_aligned(stars_audit):
    alignment = {file["name"]: file["alignment"] for file in stars_audit["files"]}
    assert alignment["onnx/winml.onnx"] == {
        "inputs": {"ids:0": "input_ids", "input_mask:0": "attention_mask", "segment_ids:0": "token_type_ids"},
        "outputs": {"logits": "y"},
    }


# Damaged graphs: one file each, in one repository


def copied(source: Path, target: Path) -> Path:
    target.parent.mkdir(exist_ok=True, parents=True)
    shutil.copyfile(source, target)
    return target


def weight(change, shape=None):
    """Return a damage that changes a matrix."""
    return lambda good, path: published.change_weight(copied(good / "model.onnx", path), change, shape)


def graph(change):
    """Return a damage that changes a graph."""
    return lambda good, path: published.changed(copied(good / "model.onnx", path), change)


def exported(**options):
    """Return a damage that an export makes."""
    return lambda good, path: published.export(STARS, path, **options)


def external(damage):
    """Return a damage to a graph whose weights are in a file of their own."""

    def apply(good: Path, path: Path) -> None:
        published.save_with_data(good / "model.onnx", path)
        damage(path)

    return apply


def other_weights(good: Path, path: Path) -> None:
    """Put the weights of a model with the same shapes into a file."""
    generator = np.random.default_rng(0)

    def change(model) -> None:
        for tensor in model.graph.initializer:
            values = published.numpy_helper.to_array(tensor)
            if values.dtype == np.float32 and values.ndim == 2:
                other = generator.normal(0, values.std(), values.shape).astype(np.float32)
                tensor.CopyFrom(published.numpy_helper.from_array(other, tensor.name))

    published.changed(copied(good / "model.onnx", path), change)


def without_mask(good: Path, path: Path) -> None:
    """Take the input for the mask away: it is made of ones."""
    from onnx import helper

    def change(model) -> None:
        [mask] = [value for value in model.graph.input if value.name == "attention_mask"]
        model.graph.input.remove(mask)
        one = published.numpy_helper.from_array(np.array([1]), "one")
        nodes = [
            helper.make_node("Shape", ["input_ids"], ["shape_of_ids"]),
            helper.make_node("ConstantOfShape", ["shape_of_ids"], ["attention_mask"], value=one),
            *model.graph.node,
        ]
        del model.graph.node[:]
        model.graph.node.extend(nodes)

    published.changed(copied(good / "model.onnx", path), change)


GRAPHS = {
    "a/model_fp16.onnx": ("name", lambda good, path: copied(good / "model.onnx", path)),
    "b/model_int8.onnx": ("name", lambda good, path: copied(good / "model.onnx", path)),
    "c/model_q4.onnx": ("name", lambda good, path: copied(good / "model_int8.onnx", path)),
    "d/model_fp16.onnx": ("name", lambda good, path: copied(good / "model_q4.onnx", path)),
    "e/model_int8.onnx": (
        "answers",
        lambda good, path: published.scale_integers(copied(good / "model_int8.onnx", path), 3.0),
    ),
    "f/other.onnx": ("answers", other_weights),
    "g/rows.onnx": ("answers", weight(lambda values: values[::-1])),
    "h/transposed.onnx": ("answers", weight(lambda values: values.T, (64, 64))),
    "i/zeros.onnx": ("answers", weight(lambda values: values * 0, (64, 64))),
    "j/nan.onnx": ("no-number", weight(published.put_nan)),
    "k/missing.onnx": ("external-data", external(lambda path: Path(f"{path}_data").unlink())),
    "l/short.onnx": ("external-data", external(lambda path: published.cut_short(Path(f"{path}_data")))),
    "m/length.onnx": ("external-data", external(published.misstate_length)),
    "n/outside.onnx": ("external-data", external(published.leave_folder)),
    "o/batch.onnx": ("frozen-axis", exported(frozen=("batch",))),
    "p/sequence.onnx": ("frozen-axis", exported(frozen=("sequence",))),
    "q/types.onnx": ("answers", exported(ignores=("token_type_ids",))),
    "r/mask.onnx": ("batch", exported(ignores=("attention_mask",))),
    "s/no_mask.onnx": ("no-mask", without_mask),
    "t/opset.onnx": ("opset", graph(published.move_to_opset(23, 10))),
    "u/ir.onnx": ("ir", graph(published.move_to_opset(17, 12))),
    "v/custom.onnx": ("custom-operator", graph(published.add_custom_operator)),
    "w/cut.onnx": ("unreadable", lambda good, path: published.cut_short(copied(good / "model.onnx", path))),
    "x/pointer.onnx": ("unreadable", lambda good, path: published.become_pointer(copied(good / "model.onnx", path))),
    "y/empty.onnx": ("unreadable", lambda good, path: published.cut_short(copied(good / "model.onnx", path), 0)),
}
#: Right on this machine, and not in every client.
RISKS = ("opset", "ir")


@pytest.fixture(scope="session")
def damaged_audit(stars, tmp_path_factory) -> dict:
    folder = tmp_path_factory.mktemp("damaged") / "repository"
    published.write_support(STARS, folder)
    for name, (_, damage) in GRAPHS.items():
        damage(stars / "published" / "onnx", folder / name)
    return audited(folder, stars / "original", folder.parent / "audit")


@pytest.mark.parametrize("name", GRAPHS)
def test_a_damaged_graph_is_found(damaged_audit, name):
    kind, _ = GRAPHS[name]
    file = next(file for file in damaged_audit["files"] if file["name"] == name)
    assert kind in kinds(file["findings"], "risk" if kind in RISKS else "wrong"), file["findings"]
    assert file["verdict"] == ("sound" if kind in RISKS else "wrong")


def test_reasons_are_told(damaged_audit):
    told = {
        file["name"]: [each["message"] for each in file["findings"] if each["kind"] == "why"]
        for file in damaged_audit["files"]
    }
    assert any("another model's" in message for message in told["f/other.onnx"])
    assert any("in another order" in message for message in told["g/rows.onnx"])


def test_a_repository_of_damaged_files_is_not_sound(damaged_audit):
    assert (
        damaged_audit["verdict"] == "2 of 25 ONNX models are sound, 23 are wrong; beside the graphs, 1 thing is wrong."
    )


# Damages beside the graphs: a repository each


BESIDE = {
    "lower case": ("tokenizer", "tokenizer.json", published.stop_lower_casing),
    "vocabulary": ("tokenizer", "tokenizer.json", published.swap_words),
    "special tokens": ("tokenizer", "tokenizer.json", published.drop_special_tokens),
    "lower case in the configuration": (
        "tokenizer",
        "tokenizer_config.json",
        lambda config: config.update(do_lower_case=not config["do_lower_case"]),
    ),
    "length": ("length", "tokenizer_config.json", lambda config: config.update(model_max_length=16)),
    "labels": ("labels", "config.json", published.permute_labels),
    "no json": ("settings", "config.json", None),
    "no labels": ("labels", "config.json", published.drop_labels),
}


@pytest.fixture
def repository(stars, tmp_path) -> Path:
    """A repository with one sound graph."""
    folder = tmp_path / "repository"
    published.write_support(STARS, folder)
    copied(stars / "published" / "onnx" / "model.onnx", folder / "onnx" / "model.onnx")
    return folder


@pytest.mark.parametrize("damage", BESIDE)
def test_a_damage_beside_the_graphs_is_found(stars, repository, tmp_path, damage):
    kind, file, change = BESIDE[damage]
    if change is None:
        (repository / file).write_text("{")
    else:
        published.change_json(repository / file, change)
    found = audited(repository, stars / "original", tmp_path / "audit")
    assert kind in kinds(found["findings"])
    assert [each["verdict"] for each in found["files"]] == ["sound"]


def test_a_sound_repository_is_sound(stars, repository, tmp_path):
    found = audited(repository, stars / "original", tmp_path / "audit")
    assert found["sound"], found
    assert found["findings"] == []
    assert found["files"][0]["findings"] == []
    assert found["verdict"] == "1 of 1 ONNX model is sound."


def test_missing_files_beside_the_graphs_are_found(stars, repository, tmp_path):
    for name in ("tokenizer.json", "README.md"):
        (repository / name).unlink()
    found = audited(repository, stars / "original", tmp_path / "audit")
    assert kinds(found["findings"]) == {"tokenizer"}
    assert kinds(found["findings"], "risk") == {"licence"}


def test_folders_as_olive_lays_them_out(stars, tmp_path):
    """A folder for each run of passes; the graphs are judged, and what Olive does not write is missed."""
    onnx, folder = stars / "published" / "onnx", tmp_path / "repository"
    for name, source in (("fp16", "model_fp16.onnx"), ("out", "model.onnx"), ("ptq-int8", "model_int8.onnx")):
        published.lay_out_as_olive(onnx / source, folder / name, STARS)
    found = audited(folder, stars / "original", tmp_path / "audit")
    assert {file["name"]: (file["promised"], file["verdict"]) for file in found["files"]} == {
        "fp16/model.onnx": ("fp16", "sound"),
        "out/model.onnx": (None, "sound"),
        "ptq-int8/model.onnx": ("int8", "sound"),
    }
    for file in found["files"]:
        assert [Path(name).name for name in file["files"]] == ["model.onnx", "model.onnx.data"]
        assert file["findings"] == []
    told = [each["message"] for each in found["findings"] if each["severity"] == "wrong"]
    assert told == [
        "There is no tokenizer.json, so that most clients can't cut a text.",
        "There is no config.json, so that nothing names the labels.",
    ]


def test_the_same_bytes_under_two_names_are_found(stars, repository, tmp_path):
    copied(stars / "published" / "onnx" / "model_fp16.onnx", repository / "onnx" / "model_int8.onnx")
    copied(stars / "published" / "onnx" / "model_fp16.onnx", repository / "onnx" / "model_fp16.onnx")
    found = audited(repository, stars / "original", tmp_path / "audit")
    assert kinds(found["findings"]) == {"same-bytes"}


def test_a_graph_of_another_kind_is_not_judged(stars, repository, tmp_path):
    names = {"input_ids": "left", "attention_mask": "right", "token_type_ids": "middle"}
    published.renamed(repository / "onnx" / "model.onnx", repository / "onnx" / "model.onnx", names)
    found = audited(repository, stars / "original", tmp_path / "audit")
    [file] = found["files"]
    assert file["verdict"] == "not judged"
    assert kinds(file["findings"], "note") == {"not-aligned"}
    assert "alignment" not in file
    assert not found["sound"]


def test_a_file_of_another_model_is_told(stars, sentences, repository, tmp_path, monkeypatch):
    """The vectors of one model under the name of a classifier, which an earlier audit has seen."""
    monkeypatch.chdir(tmp_path)
    assert audit.main([str(sentences / "published"), "--results", str(sentences / "original"), "--exit-zero"]) == 0
    copied(sentences / "published" / "tokens.onnx", repository / "onnx" / "model_fp32.onnx")
    assert audit.main([str(repository), "--results", str(stars / "original")]) == audit.WRONG
    found = json.loads((tmp_path / "results/audits/repository/audit.json").read_text())
    files = {file["name"]: file for file in found["files"]}
    assert files["onnx/model.onnx"]["findings"] == []
    [told] = [each for each in files["onnx/model_fp32.onnx"]["findings"] if each["kind"] == "other-model"]
    assert told["severity"] == "wrong"
    assert "is, byte for byte, tokens.onnx of published, made from " in told["message"]
    assert audit.main([str(repository), "--results", str(stars / "original"), "--known"]) == audit.WRONG
    found = json.loads((tmp_path / "results/audits/repository/audit.json").read_text())
    assert all("other-model" not in kinds(file["findings"]) for file in found["files"])


# Times


def test_files_are_timed_under_any_names(stars, repository, tmp_path):
    """Each in turns with the original and with the repository's own fp32; a shape that cannot be run says so."""
    for name in ("winml.onnx", "model_int32.onnx", "model_fp16.onnx"):
        copied(stars / "published" / "onnx" / name, repository / "onnx" / name)
    published.export(STARS, repository / "onnx" / "one.onnx", frozen=("batch",))
    options = ["--benchmark", "--seconds-per-case", "1", "--exit-zero"]
    command = [str(repository), "--results", str(stars / "original"), "--output", str(tmp_path / "audit")]
    assert audit.main([*command, *options]) == 0
    found = json.loads((tmp_path / "audit" / "audit.json").read_text())
    validate(found, json.loads((ROOT / "docs/schemas/audit.schema.json").read_text()))
    assert found["timing"]["fp32"] == "onnx/model.onnx"
    assert found["timing"]["pytorch_dtype"] == "float32"
    for file in found["files"]:
        own = file["name"] == "onnx/model.onnx"
        for case in file["speed"]:
            assert case["times_faster"].keys() == {"pytorch"} | (set() if own else {"onnx/model.onnx"})
            samples = np.array(case["samples_ms"])
            assert samples.min() > 0
            assert case["p50_ms"] == pytest.approx(np.median(samples))
            for other in case["times_faster"].values():
                assert other["quartiles"][0] <= other["median"] <= other["quartiles"][1]
        shapes = [(case["batch"], case["sequence"]) for case in file["speed"]]
        notes = [each["message"] for each in file["findings"] if each["kind"] == "speed"]
        if file["name"] == "onnx/one.onnx":
            assert shapes == [(1, 128)]
            assert len(notes) == 1
            assert "Not timed at 8x128" in notes[0]
        else:
            assert shapes == [(1, 128), (8, 128)]
            assert notes == []
    assert "| ms at 1x128 | ms at 8x128 | verdict |" in (tmp_path / "audit" / "audit.md").read_text()


# Embeddings


@pytest.fixture(scope="session")
def sentences(tiny_models, tmp_path_factory) -> Path:
    """The recorded answers of a sentence-transformer, and files of public tools."""
    model = tiny_models / "sentences"

    def make(folder: Path) -> None:
        made = prepare("sentences", model, EVALUATION_TEXTS, folder)
        published.export(model, made / "tokens.onnx")
        published.export(model, made / "token_embeddings.onnx", output="token_embeddings")
        published.export(model, made / "texts.onnx", output="token_embeddings", pooled="mean")
        published.export(model, made / "pooled_by_cls.onnx", output="token_embeddings", pooled="cls")
        published.to_float16(made / "tokens.onnx", made / "model_fp16.onnx")

    return made_once(tmp_path_factory, "audited-sentences", make)


def test_vectors_of_texts(sentences, tmp_path):
    found = audited(sentences / "published", sentences / "original", tmp_path / "audit")
    files = {file["name"]: file for file in found["files"]}
    assert found["findings"] == []
    assert {name: file["verdict"] for name, file in files.items()} == {
        "model_fp16.onnx": "sound",
        "pooled_by_cls.onnx": "wrong",
        "texts.onnx": "sound",
        "token_embeddings.onnx": "sound",
        "tokens.onnx": "sound",
    }
    assert files["tokens.onnx"]["alignment"]["outputs"] == {
        "last_hidden_state": "last_hidden_state",
        "sentence_embedding": "last_hidden_state, pooled by mean, normalized",
    }
    assert "why" in kinds(files["pooled_by_cls.onnx"]["findings"], "note")


def test_vectors_are_those_of_encode(sentences, tmp_path, tiny_models):
    """The measured cosine of a file is that of plain mean pooling and ``encode()``."""
    from sentence_transformers import SentenceTransformer

    found = audited(sentences / "published", sentences / "original", tmp_path / "audit")
    file = next(file for file in found["files"] if file["name"] == "pooled_by_cls.onnx")
    model = SentenceTransformer(str(tiny_models / "sentences"), device="cpu")
    texts = json.loads((sentences / "original" / "reference" / "texts.json").read_text())
    import onnxruntime

    session = onnxruntime.InferenceSession(sentences / "published" / "pooled_by_cls.onnx")
    cosines = []
    for text in texts:
        made = model.tokenizer([text], truncation=True, max_length=48, return_tensors="np")
        answer = session.run(["sentence_embedding"], {name: made[name] for name in INPUTS})[0][0]
        cosines.append(float(answer @ model.encode(text)))
    assert file["task_metrics"]["cosine_min"] == pytest.approx(min(cosines), abs=1e-4)


@pytest.mark.parametrize("change", ["cls", "missing"])
def test_pooling_beside_the_graphs(sentences, tmp_path, change):
    folder = tmp_path / "repository"
    published.write_support(sentences / "published", folder)
    for path in folder.glob("*.onnx"):
        if path.name != "tokens.onnx":
            path.unlink()
    if change == "cls":
        published.change_json(folder / "1_Pooling" / "config.json", published.pool_by_cls)
    else:
        (folder / "modules.json").unlink()
    found = audited(folder, sentences / "original", tmp_path / "audit")
    assert kinds(found["findings"], "wrong" if change == "cls" else "risk") == {"pooling"}


def test_a_pooler_under_another_name_is_not_blamed(sentences, tmp_path):
    """Olive's export of a BERT has the pooler's vectors as ``tanh``; those of texts are pooled from the tokens'."""
    folder = tmp_path / "repository"
    published.write_support(sentences / "published", folder)
    for path in folder.glob("*.onnx"):
        path.unlink()
    names = {"sentence_embedding": "tanh"}
    published.renamed(sentences / "published" / "pooled_by_cls.onnx", folder / "model.onnx", names)
    found = audited(folder, sentences / "original", tmp_path / "audit")
    assert found["sound"], found["files"][0]["findings"]
    assert found["files"][0]["alignment"]["outputs"] == {
        "last_hidden_state": "token_embeddings",
        "sentence_embedding": "last_hidden_state, pooled by mean, normalized",
    }


# Models that write: of several graphs, and with a cache


@pytest.fixture(scope="session")
def writers(tmp_path_factory, optimum_python) -> Path:
    """The recorded answers of a BART and of a Llama, and what Optimum makes of them."""

    def make(folder: Path) -> None:
        for name, task in (("bart", "text2text-generation"), ("llama", "text-generation")):
            save_case(folder / name / "model", f"{name} {task}")
            record(name, folder / name / "model", EVALUATION_TEXTS, folder / name)
            export_with_optimum(folder / name / "model", folder / name / "files", f"{task}-with-past")

    return made_once(tmp_path_factory, "audited-writers", make)


@pytest.fixture
def writer(writers, tmp_path):
    """A function that audits a copy of a model's files after a change to their folder, and returns what was found."""

    def audit_after(name: str, change=lambda folder: None) -> dict:
        folder = tmp_path / "repository"
        shutil.copytree(writers / name / "files", folder)
        change(folder)
        found = audited(folder, writers / name, tmp_path / "audit")
        assert kinds(found["findings"]) == set()
        [file] = found["files"]
        return file

    return audit_after


def test_graphs_of_an_encoder_decoder(writer):
    file = writer("bart")
    assert file["verdict"] == "sound"
    assert file["findings"] == []
    assert {"encoder_model.onnx", "decoder_model.onnx", "decoder_with_past_model.onnx"} <= file["files"].keys()
    assert {"logits", "logits of decoder_model_merged.onnx"} <= file["outputs"].keys()
    assert file["task_metrics"]["greedy_token_match"] == 1


def test_an_encoder_decoder_with_a_merged_decoder_alone(writer):
    def change(folder: Path) -> None:
        (folder / "decoder_model.onnx").unlink()
        (folder / "decoder_with_past_model.onnx").unlink()

    file = writer("bart", change)
    assert file["verdict"] == "sound"
    assert file["task_metrics"]["greedy_token_match"] == 1


@pytest.mark.parametrize("name", ["encoder_model.onnx", "decoder_with_past_model.onnx", "decoder_model_merged.onnx"])
def test_one_damaged_graph_of_an_encoder_decoder(writer, name):
    """Of the second decoder, only what is written from its cache tells."""
    file = writer("bart", lambda folder: published.change_weight(folder / name, lambda values: -values[::-1], (64, 64)))
    assert file["verdict"] == "wrong"
    assert kinds(file["findings"]) == {"answers"}
    assert (file["outputs"]["logits"]["cosine_min"] > 0.9999) == (name != "encoder_model.onnx")


def test_an_encoder_without_a_decoder_is_not_judged(writer):
    def change(folder: Path) -> None:
        for path in folder.glob("decoder_*.onnx"):
            path.unlink()

    file = writer("bart", change)
    assert file["verdict"] == "not judged"
    assert kinds(file["findings"], "note") == {"not-aligned"}


def test_graphs_in_float16_as_transformers_js_names_them(writer):
    """Inputs, outputs and caches are float16 too."""

    def change(folder: Path) -> None:
        (folder / "decoder_model_merged.onnx").unlink()
        for part in ("encoder_model", "decoder_model", "decoder_with_past_model"):
            published.to_float16(folder / f"{part}.onnx", folder / f"{part}_fp16.onnx")
            (folder / f"{part}.onnx").unlink()

    file = writer("bart", change)
    assert (file["name"], file["promised"], file["verdict"]) == ("encoder_model_fp16.onnx", "fp16", "sound")
    assert file["task_metrics"]["greedy_token_match"] == 1


def test_a_folder_for_each_graph_of_an_encoder_decoder(writer):
    def change(folder: Path) -> None:
        (folder / "decoder_model_merged.onnx").unlink()
        for part in ("encoder", "decoder", "decoder_with_past"):
            (folder / part).mkdir()
            (folder / f"{part}_model.onnx").rename(folder / part / "model.onnx")

    file = writer("bart", change)
    assert (file["name"], file["verdict"]) == ("encoder/model.onnx", "sound")
    assert file["task_metrics"]["greedy_token_match"] == 1


@pytest.fixture(scope="session")
def listener(tmp_path_factory, genai_python) -> Path:
    """The recorded answers of a Whisper, and what the model builder of onnxruntime-genai makes of it."""

    def make(folder: Path) -> None:
        save_whisper(folder / "model", "WhisperForConditionalGeneration", seconds=30, bins=80)
        record("whisper", folder / "model", EVALUATION_TEXTS, folder)
        find = "import onnxruntime_genai; print(onnxruntime_genai.__path__[0])"
        place = subprocess.run([genai_python, "-c", find], capture_output=True, text=True, check=True, timeout=60)
        builder = Path(place.stdout.strip()) / "models" / "builder.py"
        words = ["-i", folder / "model", "-o", folder / "files", "-c", folder / "cache", "-p", "fp32", "-e", "cpu"]
        subprocess.run([sys.executable, builder, *words], capture_output=True, check=True, timeout=120)

    return made_once(tmp_path_factory, "audited-listener", make)


def exchange_layers(folder: Path) -> None:
    """Let the encoder call the keys of one layer those of the other."""
    names = {f"present_key_cross_{layer}": f"present_key_cross_{1 - layer}" for layer in (0, 1)}
    published.renamed(folder / "encoder.onnx", folder / "encoder.onnx", names)


def turn_weight(folder: Path) -> None:
    """Damage the decoder."""
    published.change_weight(folder / "decoder.onnx", lambda values: -values[::-1], (64, 64))


@pytest.mark.parametrize("damage", [None, exchange_layers, turn_weight])
def test_graphs_of_onnxruntime_genai(listener, tmp_path, damage):
    folder = tmp_path / "repository"
    shutil.copytree(listener / "files", folder)
    if damage is not None:
        damage(folder)
    found = audited(folder, listener, tmp_path / "audit")
    [file] = found["files"]
    assert {"encoder.onnx", "decoder.onnx"} <= file["files"].keys()
    assert (file["verdict"], kinds(file["findings"])) == (("wrong", {"answers"}) if damage else ("sound", set()))
    assert damage is not None or file["task_metrics"]["greedy_token_match"] == 1


def written_by(path: Path, prompt: list[int], count: int) -> list[int]:
    """Return what a decoder writes after a prompt, token by token from its cache, with onnxruntime alone."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path)
    cache = {
        value.name: np.zeros([1, value.shape[1], 0, value.shape[3]], np.float32)
        for value in session.get_inputs()
        if value.name.startswith("past")
    }
    new, tokens = prompt, list(prompt)
    for _ in range(count):
        feed = {
            "input_ids": np.array([new]),
            "attention_mask": np.ones((1, len(tokens)), np.int64),
            "position_ids": np.arange(len(tokens))[None, -len(new) :],
        }
        logits, *present = session.run(None, feed | cache)
        cache = dict(zip(cache, present, strict=True))
        new = [int(logits[0, -1].argmax())]
        tokens += new
    return tokens[len(prompt) :]


def test_a_decoder_with_a_cache_writes_as_generate_does(writers, writer):
    from transformers import AutoModelForCausalLM

    file = writer("llama")
    assert file["verdict"] == "sound"
    assert file["findings"] == []
    assert file["task_metrics"]["greedy_token_match"] == 1
    import torch

    model = AutoModelForCausalLM.from_pretrained(writers / "llama" / "model").eval()
    prompt = [2, 40, 41, 42]
    made = model.generate(torch.tensor([prompt]), do_sample=False, min_new_tokens=8, max_new_tokens=8)
    assert written_by(writers / "llama" / "files" / "model.onnx", prompt, 8) == made[0, len(prompt) :].tolist()


def test_a_cache_under_other_names(writer):
    def change(folder: Path) -> None:
        names = {
            f"{theirs}.{layer}.{part}": f"{ours}_{layer}_{part}"
            for theirs, ours in (("past_key_values", "past"), ("present", "present"))
            for layer in range(2)
            for part in ("key", "value")
        }
        published.renamed(folder / "model.onnx", folder / "model.onnx", names)

    file = writer("llama", change)
    assert file["verdict"] == "sound"
    assert file["alignment"]["inputs"]["past_1_key"] == "past_key_values.1.key"
    assert file["task_metrics"]["greedy_token_match"] == 1


def test_a_cache_whose_layers_are_exchanged(writer):
    """The first new token is right, and those that are written from the cache are not."""

    def change(folder: Path) -> None:
        parts = [(layer, part) for layer in (0, 1) for part in ("key", "value")]
        exchanged = {f"present.{layer}.{part}": f"present.{1 - layer}.{part}" for layer, part in parts}
        published.renamed(folder / "model.onnx", folder / "model.onnx", exchanged)

    file = writer("llama", change)
    assert file["verdict"] == "wrong"
    assert file["task_metrics"]["next_token_agreement"] == 1
    assert file["task_metrics"]["greedy_token_match"] < 1
    assert kinds(file["findings"]) == {"answers"}


def test_a_tokenizer_that_ends_no_prompt_is_told(writers, tmp_path):
    folder = tmp_path / "repository"
    shutil.copytree(writers / "llama" / "files", folder)
    published.change_json(folder / "tokenizer.json", published.drop_special_tokens)
    found = audited(folder, writers / "llama", tmp_path / "audit")
    assert kinds(found["findings"]) == {"tokenizer"}


# Whom to ask, and mistakes of a user


def test_the_card_names_the_original(repository):
    (repository / "README.md").write_text("---\nbase_model:\n- someone/stars\n---\n")
    found = audit.Repository("stars-onnx", repository, {"kind": "path"})
    expected = (["--hub", "someone/stars", "--allow-floating-revision"], "base_model of the card")
    assert audit.find_original(found, None) == expected


def test_own_weights_are_the_original(repository):
    shutil.copyfile(STARS / "model.safetensors", repository / "model.safetensors")
    found = audit.Repository("stars-onnx", repository, {"kind": "path"})
    assert audit.find_original(found, None) == (["--path", str(repository)], "the repository's own weights")


def test_the_original_is_asked_once(repository, tmp_path, capsys):
    texts = few_texts(HELD_OUT, tmp_path / "texts.jsonl")
    output = tmp_path / "audit"
    run = partial(
        audit.main, [str(repository), "--original", str(STARS), "--texts", str(texts), "--output", str(output)]
    )
    assert run() == 0
    capsys.readouterr()
    assert run() == 0
    assert "the original's answers are there already" in capsys.readouterr().out
    audit.main([str(repository), "--original", str(STARS), "--texts", str(texts), "--output", str(output), "--json"])
    assert json.loads(capsys.readouterr().out) == json.loads((output / "audit.json").read_text())


def test_an_audit_in_the_workflow(tiny_models, tmp_path):
    project = make_tiny_project(tmp_path / "project", tiny_models)
    theirs = project.folder / "theirs"
    published.write_support(project.folder / "models/stars", theirs)
    published.export(project.folder / "models/stars", theirs / "model.onnx")
    copied(theirs / "model.onnx", theirs / "model_fp16.onnx")
    model = project.config["models"]["stars"] | {"audits": {"community": {"path": "theirs"}}}
    project.configure(project.config | {"models": {"stars": model}})
    run = project.snakemake("all_audits")
    assert run.returncode == 0, run.stdout
    found = json.loads((project.folder / "results/stars/audits/community/audit.json").read_text())
    assert {file["name"]: file["verdict"] for file in found["files"]} == {
        "model.onnx": "sound",
        "model_fp16.onnx": "wrong",
    }
    assert not (project.folder / "results/stars/onnx").exists()
    assert project.planned("all_audits") == {}
    published.to_float16(theirs / "model.onnx", theirs / "model_fp16.onnx")
    assert project.planned("all_audits") == {"all_audits": 1, "audit": 1}
