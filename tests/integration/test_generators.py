"""Models that generate text, through the workflow, and what Optimum generates with the files of their releases."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import verify_release
from architectures import all_cases
from card_programs import programs, run_program
from chain import missed
from compare_clients import compare, run_client
from fitting import misfits
from measure_parity import measure
from onnxproof.checkpoint.inference import read_start_token
from onnxproof.inputs.prompts import NEW_TOKENS
from onnxproof.inputs.reference import read_reference
from project import make_project

CASES = {case.name: case for case in all_cases()}
#: Random weights on the edge of every second guess: int8 need not generate 32 tokens alike.
LOOSE = {"next_token_agreement": 0.6, "greedy_token_match": 0.01, "batch_cosine_min": 0.9, "next_token_kl": 0.5}

THREE = ["encoder_model", "decoder_model", "decoder_with_past_model"]
#: Model → its task, the ONNX files of its release, without what tells the variant, and Optimum's class for it.
MODELS = {
    "writer": ("text-generation", ["model"], "ORTModelForCausalLM"),
    "translator": ("text2text-generation", THREE, "ORTModelForSeq2SeqLM"),
    "listener": ("speech-to-text", THREE, "ORTModelForSpeechSeq2Seq"),
    "captioner": ("image-to-text", THREE, "ORTModelForVision2Seq"),
}
SAVED = {
    "writer": "opt text-generation",
    "translator": "mt5 text2text-generation",
    "listener": "whisper speech-to-text",
    "captioner": "vit and gpt2 image-to-text",
}

NONE = {"cases": []}

OPTIMUM_SCRIPT = Path(__file__).parents[2] / "tools" / "optimum_generates.py"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run over a decoder with a cache, and encoder-decoders of texts, sounds and images."""
    project = make_project(tmp_path_factory.mktemp("generation"))
    for model, case in SAVED.items():
        CASES[case].save(project.folder / "models" / model)
    settings = {"targets": {"int8": LOOSE}}
    thresholds = {"thresholds": {"int8": LOOSE}}
    project.configure(
        project.config
        | {"models": {model: {"source": {"path": f"models/{model}"}} for model in MODELS}, "variants": ["fp32", "int8"]}
        | {"quantization": settings, "parity": project.config["parity"] | thresholds}
    )
    run = project.snakemake()
    assert run.returncode == 0, run.stdout
    return project.folder / "results"


def test_every_file_is_what_its_schema_says(finished):
    assert misfits(finished) == []


@pytest.mark.parametrize("model", MODELS)
def test_every_variant_is_judged_by_what_it_generates(finished, model):
    limits = {"fp32": (1.0, 1e-5), "int8": (0.01, 0.1)}
    for variant, (least, apart) in limits.items():
        parity = json.loads((finished / f"{model}/parity/{variant}.json").read_text())
        assert parity["task"] == MODELS[model][0]
        assert next(iter(parity["task_metrics"])) == "greedy_token_match"
        assert parity["task_metrics"]["greedy_token_match"] >= least
        assert parity["task_metrics"]["perplexity_ratio"] == pytest.approx(1, abs=apart)
        assert "perplexity_ratio" in (finished / f"{model}/parity/{variant}.ok").read_text()
        assert "greedy_token_match" in (finished / f"{model}/parity/{variant}.ok").read_text()
        benchmark = json.loads((finished / f"{model}/benchmark/{variant}.json").read_text())
        length = None if "-to-" in MODELS[model][0] else 8  # sounds and images have no length in tokens
        assert {(case["batch"], case["sequence"]) for case in benchmark["cases"]} == {(1, length), (2, length)}
        steps = [(case["step"], case["batch"], case["context"]) for case in benchmark.get("generation", NONE)["cases"]]
        expected = [("first_token", 1, 4), ("next_token", 1, 8), ("next_token", 2, 8)]
        assert steps == (expected if model == "writer" else [])
    assert (finished / f"{model}/benchmark/pytorch.json").is_file()


@pytest.mark.parametrize("model", MODELS)
def test_every_graph_is_described_and_released(finished, model):
    graphs = MODELS[model][1]
    if graphs == THREE:
        graphs = [*THREE, "decoder_model_merged"]
    for variant, suffix in (("fp32", ""), ("int8", "_quantized")):
        manifest = json.loads((finished / f"{model}/onnx/{variant}.json").read_text())
        assert {f"{graph}.onnx" for graph in graphs} <= manifest["files"].keys()
        for graph in graphs:
            made = (finished / f"{model}/onnx/{variant}/{graph}.onnx").read_bytes()
            assert (finished / f"{model}/release/onnx/{graph}{suffix}.onnx").read_bytes() == made
            described = manifest["graphs"][f"{graph}.onnx"] if len(graphs) > 1 else manifest
            assert ("MatMulInteger" in described["operators"]) == (variant == "int8")


@pytest.mark.parametrize("model", MODELS)
def test_optimum_generates_pytorchs_tokens_with_the_released_files(finished, tmp_path, optimum_python, model):
    folder = finished / model
    reference = read_reference(folder / "reference", folder / "reference.json")
    # No stuck record, although random weights repeat themselves where the head is the table of embeddings.
    assert len({token for tokens in reference.generated.values() for token in tokens}) > 4
    _, graphs, loader = MODELS[model]
    options = ["encoder_file_name", "decoder_file_name", "decoder_with_past_file_name"]
    names = {option: f"{graph}.onnx" for option, graph in zip(options[: len(graphs)], graphs, strict=True)}
    if graphs == ["model"]:
        names = {"file_name": "model.onnx"}
    fp32 = str(folder / "onnx" / "fp32")
    networks = [(str(folder / "release"), {"subfolder": "onnx", **names}), (fp32, {})]
    if graphs == THREE:
        networks.append((fp32, {"use_cache": False, "use_merged": False}))
    inputs = tmp_path / "inputs.npz"
    items = {index: reference.inputs.items[index] for index in reference.generated}
    np.savez(inputs, **{f"{index}/{name}": array for index, item in items.items() for name, array in item.items()})
    start = read_start_token(folder / "release")
    asked = {"loader": loader, "networks": networks, "start": start, "new_tokens": NEW_TOKENS}
    answers = run_client([optimum_python, OPTIMUM_SCRIPT, inputs], asked)
    assert [answer["use_cache"] for answer in answers] == [True, True, False][: len(networks)]
    assert answers[1]["merged"] == (graphs == THREE)
    for answer in answers:
        assert {int(index): tokens for index, tokens in answer["tokens"].items()} == reference.generated


@pytest.mark.parametrize("model", [model for model, (_, graphs, _) in MODELS.items() if graphs == THREE])
def test_a_merged_decoder_that_answers_otherwise_does_not_pass(finished, tmp_path, model):
    results = finished / model
    reference = read_reference(results / "reference", results / "reference.json")
    folder, manifest = tmp_path / "fp32", json.loads((results / "onnx/fp32.json").read_text())
    shutil.copytree(results / "onnx" / "fp32", folder)
    assert missed(measure(folder, manifest, reference, batch_size=2, threads=1)) == []
    shutil.copyfile(results / "onnx/int8/decoder_model_merged.onnx", folder / "decoder_model_merged.onnx")
    failed = missed(measure(folder, manifest, reference, batch_size=2, threads=1))
    assert "max_relative_diff" in {verdict.metric for verdict in failed}


@pytest.mark.parametrize("model", MODELS)
def test_the_examples_of_the_card_run_as_they_stand_and_generate_the_same(finished, optimum_python, model):
    release = finished / model / "release"
    codes = programs(release, "python")
    assert len(codes) == (1 if model == "listener" else 2)
    for files in ("_quantized.onnx", ".onnx"):
        changed = [code.replace("_quantized.onnx", files) for code in codes]
        with_optimum, *with_onnxruntime = (
            tokens_of(run_program(code, release, ["tokens", "answers", "outputs"], optimum_python)) for code in changed
        )
        assert len(with_optimum) > 1
        assert all(tokens == with_optimum for tokens in with_onnxruntime)


def tokens_of(variables: dict) -> list[int]:
    """Return the tokens that a program wrote about its first input."""
    if isinstance(
        variables.get("outputs"), dict
    ):  # of the graphs alone: the listener has no tokenizer for the pipeline
        return variables["outputs"]["tokens"]
    first = variables["answers" if "answers" in variables else "tokens"][0]
    return first["tokens"] if isinstance(first, dict) else first


def test_every_client_goes_on_like_pytorch(finished, optimum_python, node_modules):
    rows = compare(finished / "writer/release", optimum_python, node_modules)
    clients = {"Optimum", "Optimum in a pipeline", "onnxruntime", "transformers.js"}
    assert {row["client"] for row in rows if row["variant"] == "fp32" and row.get("token_match") == 1} == clients
    for row in rows:
        assert row.get("max_abs_diff", 0) < (1e-5 if row["variant"] == "fp32" else 0.3), row


@pytest.mark.parametrize("model", ["writer", "translator"])
def test_the_javascript_example_of_the_card_runs_as_it_stands(finished, optimum_python, node_modules, model):
    release = finished / model / "release"
    (code,) = programs(release, "js")
    script = node_modules.parent / f"{model}.mjs"
    script.write_text(code.replace('"q8"', '"fp32"'))
    process = subprocess.run(["node", script], cwd=release, capture_output=True, text=True, timeout=100, check=False)
    assert process.returncode == 0, process.stderr
    tokens = json.loads(process.stdout)[0]
    program = programs(release, "python")[1].replace("_quantized.onnx", ".onnx")
    new = tokens_of(run_program(program, release, ["answers"], optimum_python))
    assert new
    assert tokens == new


@pytest.mark.parametrize(
    ("model", "stem"),
    [
        ("writer", "model"),
        ("translator", "decoder_model"),
        ("listener", "decoder_model"),
        ("captioner", "decoder_model"),
    ],
)
def test_the_release_is_verified_by_what_it_generates(finished, tmp_path, model, stem):
    release = tmp_path / "release"
    shutil.copytree(finished / model / "release", release)
    record = json.loads((finished / model / "verified.json").read_text())
    checked = {(check["subject"], check["what"]) for check in record["checks"] if check["verdict"] == "pass"}
    files = [f"onnx/{stem}.onnx", f"onnx/{stem}_quantized.onnx"]
    for file in files:
        assert {(file, "greedy_token_match"), (file, "batch_cosine_min")} <= checked
    golden = json.loads((release / "golden.json").read_text())
    index = next(iter(golden["generated"]))
    golden["generated"][index][0] += 1
    (release / "golden.json").write_text(json.dumps(golden))
    run = subprocess.run(
        [sys.executable, release / "verify_release.py"], capture_output=True, text=True, env=os.environ, check=False
    )
    assert run.returncode == 1
    lines = [line for line in run.stdout.splitlines() if "greedy_token_match" in line and "FAIL" in line]
    assert {line.split()[0] for line in lines} == {file for file in files if "quantized" not in file}
    assert np.isclose(float(lines[0].split()[2]), 1 - 1 / len(golden["generated"]))


def test_a_wrong_merged_decoder_fails_its_release(finished, tmp_path, capsys):
    release = tmp_path / "release"
    shutil.copytree(finished / "translator" / "release", release)
    shutil.copyfile(release / "onnx/decoder_model_merged_quantized.onnx", release / "onnx/decoder_model_merged.onnx")
    assert verify_release.main([str(release), "--threads", "1"]) == 1
    lines = capsys.readouterr().out.splitlines()
    wrong = [line for line in lines if line.startswith("onnx/decoder_model.onnx ") and line.endswith("FAIL")]
    assert "max_relative_diff" in {line.split()[1] for line in wrong}


def test_prompts_and_next_tokens_are_timed_on_a_gpu(finished, monkeypatch, capsys):
    """With the CPU in the place of the GPU, which the machine of the tests need not have."""
    import on_gpu
    from onnxproof.graph.sessions import open_session

    for name, value in {"DEVICE": "cpu", "PROMPTS": [(2, 8)], "ROUNDS": 1, "CALLS": 1}.items():
        monkeypatch.setattr(on_gpu, name, value)
    monkeypatch.setattr(on_gpu, "sees_gpu", lambda: False)
    monkeypatch.setattr(on_gpu, "open_on_gpu", lambda path: open_session(path, 1))
    assert on_gpu.main([str(finished / "writer"), "--variants", "fp32"]) == 0
    parity, titles, _, row = capsys.readouterr().out.splitlines()
    assert "'greedy_token_match': 1.0" in parity
    assert titles == "| ms | first token, 2x8 | next token, 2x8 |"
    assert all(float(cell) > 0 for cell in row.split("|")[2:4])
    assert on_gpu.main([str(finished / "translator"), "--variants", "fp32"]) == 0
    assert capsys.readouterr().out.endswith("is not one graph that takes texts: its speed was not measured\n")


def test_ways_to_round_to_four_bits_are_compared(finished, tmp_path, monkeypatch):
    import compare_blocks
    from onnxproof.inputs.texts import CALIBRATION_TEXTS

    monkeypatch.setattr(compare_blocks, "FORMS", [(8, 32)])
    page, results = tmp_path / "blocks.md", finished / "writer"
    arguments = ["--results", str(results), "--texts", str(CALIBRATION_TEXTS), "--table", str(page)]
    compare_blocks.main(arguments)
    rows = [line.split(" | ") for line in page.read_text().splitlines() if line.startswith("| 8, 32")]
    assert [row[1] for row in rows][:2] == ["**ours**", "onnxruntime, nearest"]
    assert len(rows) == 5
    assert all(0 < float(row[2]) < 1 for row in rows)
    assert all(0 < float(row[4].removesuffix(" |")) < 1 for row in rows)


def test_files_of_llama_cpp_are_held_to_the_same_answers(finished, monkeypatch):
    """With onnxruntime in the place of llama.cpp, which not every machine of the tests has."""
    import compare_blocks
    from onnxproof.graph.generation import decoder_feed, empty_cache
    from onnxproof.graph.sessions import open_session

    results = finished / "writer"
    session = open_session(results / "onnx/fp32/model.onnx", 1)
    names = [value.name for value in session.get_inputs()]
    cache = {name: values[None] for name, values in empty_cache(session.get_inputs()).items()}

    def write_file(checkpoint, python, kind, folder):
        assert (checkpoint / "model.safetensors").is_file()
        (folder / "model.gguf").write_bytes(b"")

    def answer(name, python, isolated, script, folder, texts, logits, threads):
        shift = 0.5 if "Q4" in folder.name else 0.0
        answers = {}
        for number, tokens in np.load(texts).items():
            (rows,) = session.run(["logits"], decoder_feed(tokens[None], 0, names) | cache)
            answers[number] = rows[0] * (1 + shift)
        np.savez(logits, **answers)

    monkeypatch.setattr(compare_blocks, "save_gguf", write_file)
    monkeypatch.setattr(compare_blocks, "run_tool", answer)
    rows = [row.split(" | ") for row in compare_blocks.measure_llama(results, Path(sys.executable), 1)]
    assert [row[1] for row in rows] == ["llama.cpp, F32", "llama.cpp, Q8_0", "llama.cpp, Q4_K_M"]
    for row in rows[:2]:
        assert float(row[3]) == pytest.approx(1, abs=1e-5)
        assert float(row[4].removesuffix(" |")) == pytest.approx(0, abs=1e-6)
    assert float(rows[2][3]) != pytest.approx(1, abs=1e-4)
    assert float(rows[2][4].removesuffix(" |")) > 1e-4
