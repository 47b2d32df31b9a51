# ruff: noqa: E501 - a message is easiest to compare on one line
"""Every message about a configuration, whole, as a user reads it."""

import functools
import itertools
import math

import pytest
import yaml

from configurations import COMMIT, HUB, one, told_problem
from onnxproof.cli import UserError
from onnxproof.config.lists import load_models
from onnxproof.config.machines import check_machines
from onnxproof.config.problem import ConfigError
from onnxproof.config.schema import SCHEMA_PATH, dereferenced
from onnxproof.config.yaml_text import check_yaml_text

ADVICE = "give the full commit, 40 hexadecimal digits, which the model's page lists under Files and versions, History; or name a branch or tag and set allow_floating_revision: true"


@functools.cache
def schema():
    return yaml.safe_load(SCHEMA_PATH.read_text(encoding="utf-8"))


def allowed(path=""):
    """The end of a message about an unknown key: the keys that the schema has there, in its order."""
    part = schema()
    for key in path.split(".") if path else []:
        part = dereferenced(part["additionalProperties"] if key == "NAME" else part["properties"][key])
    return f" Allowed here: {', '.join(part['properties'])}"


@pytest.fixture(scope="session")
def distribution_folder(tmp_path_factory):
    """An importable folder with one installed distribution, demo-model, that carries demo/model/."""
    site = tmp_path_factory.mktemp("site")
    (site / "demo/model").mkdir(parents=True)
    (site / "demo/model/config.json").write_text("{}")
    (site / "elsewhere").mkdir()
    info = site / "demo_model-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: demo-model\nVersion: 1.0\n")
    (info / "RECORD").write_text("demo/model/config.json,,\ndemo_model-1.0.dist-info/METADATA,,\n")
    return site


# ------------------------------------------------------------------------------------ keys, types, values, sources

UNKNOWN_KEYS = [
    ({**one(), "colour": 1}, "colour (seen: 1) is an unknown key." + allowed()),
    (
        {**one(), "variantz": ["fp32"]},
        "variantz (seen: ['fp32']) is an unknown key. Did you mean 'variants'?" + allowed(),
    ),
    (one(tsak="x"), "models.X.tsak (seen: 'x') is an unknown key. Did you mean 'task'?" + allowed("models.NAME")),
    (
        one({**HUB, "revisiom": "a"}),
        "models.X.source.revisiom (seen: 'a') is an unknown key. Did you mean 'revision'?"
        + allowed("models.NAME.source"),
    ),
    (
        {**one(), "parity": {"batchsize": 3}},
        "parity.batchsize (seen: 3) is an unknown key. Did you mean 'batch_size'?" + allowed("parity"),
    ),
    (one(parity={"zeal": 3}), "models.X.parity.zeal (seen: 3) is an unknown key." + allowed("models.NAME.parity")),
    (
        {**one(), "benchmark": {"Rounds": 3}},
        "benchmark.Rounds (seen: 3) is an unknown key. Did you mean 'rounds'?" + allowed("benchmark"),
    ),
    (
        {**one(), "parity": {"thresholds": {"int9": {}}}},
        "parity.thresholds.int9 (seen: {}) is an unknown key. Did you mean 'int8'?" + allowed("parity.thresholds"),
    ),
    (
        one(parity={"thresholds": {"int8": {"cosin_min": 0.9}}}),
        "models.X.parity.thresholds.int8.cosin_min (seen: 0.9) is an unknown key. Did you mean 'cosine_min'?"
        + allowed("models.NAME.parity.thresholds.int8"),
    ),
    ({**one(), 7: "x"}, "7 (seen: 'x') is an unknown key." + allowed()),
    (one(parity={7: "x"}), "models.X.parity.7 (seen: 'x') is an unknown key." + allowed("models.NAME.parity")),
]

MISPLACED_KEYS = [
    (
        {**one(), "benchmark": {"batch_size": 3}},
        "benchmark.batch_size (seen: 3) is an unknown key. Did you mean 'batch_sizes'?" + allowed("benchmark"),
    ),
    ({**one(), "rounds": 3}, "rounds (seen: 3) is an unknown key. It belongs in benchmark." + allowed()),
    (
        {**one(), "task": "x"},
        "task (seen: 'x') is an unknown key. It belongs in models.NAME or evaluation." + allowed(),
    ),
    (
        one(revision="x"),
        "models.X.revision (seen: 'x') is an unknown key. It belongs in models.X.source or models.X.evaluation."
        + allowed("models.NAME"),
    ),
    (
        one({**HUB, "task": "x"}),
        "models.X.source.task (seen: 'x') is an unknown key. It belongs in models.X." + allowed("models.NAME.source"),
    ),
    (
        one(thresholds={}),
        "models.X.thresholds (seen: {}) is an unknown key. It belongs in models.X.parity." + allowed("models.NAME"),
    ),
    (
        one(parity={"threads": 1}),
        "models.X.parity.threads (seen: 1) is an unknown key. It belongs in models.X.benchmark."
        + allowed("models.NAME.parity"),
    ),
    (
        {**one(), "parity": {"models": 1}},
        "parity.models (seen: 1) is an unknown key. It belongs in the top level." + allowed("parity"),
    ),
    (
        {**one(), "parity": {"cosine_min": 1}},
        "parity.cosine_min (seen: 1) is an unknown key. It belongs in parity.thresholds.VARIANT." + allowed("parity"),
    ),
]

WRONG_TYPES = [
    (None, "the configuration is null, must be a mapping (key: value)"),
    ([1], "the configuration is [1], must be a mapping (key: value)"),
    ({"models": ["a"]}, "models is ['a'], must be a mapping (key: value)"),
    ({"models": None}, "models is null, must be a mapping (key: value)"),
    ({"models": {"X": None}}, "models.X is null, must be a mapping (key: value)"),
    ({"models": {"X": {"source": "a/b"}}}, "models.X.source is 'a/b', must be a mapping (key: value)"),
    (one({"hub": "a/b", "revision": 12345678}), "models.X.source.revision is 12345678, must be text: put it in quotes"),
    (one({"path": ["a"]}), "models.X.source.path is ['a'], must be text"),
    (one(variants="int8"), "models.X.variants is 'int8', must be a list"),
    ({**one(), "parity": None}, "parity is null, must be a mapping (key: value)"),
    ({**one(), "parity": {"batch_size": 8.0}}, "parity.batch_size is 8.0, must be a whole number"),
    ({**one(), "parity": {"batch_size": True}}, "parity.batch_size is true, must be a whole number"),
    (
        {**one(), "parity": {"evaluation_texts": 3}},
        "parity.evaluation_texts is 3, must be text or null: put it in quotes",
    ),
    ({**one(), "benchmark": {"batch_sizes": 8}}, "benchmark.batch_sizes is 8, must be a list, such as [8]"),
    ({**one(), "benchmark": {"threads": [1, True]}}, "benchmark.threads[1] is true, must be a whole number"),
    (
        {**one(), "benchmark": {"rounds": "7"}},
        "benchmark.rounds is '7', must be a whole number: YAML reads it as text, so leave out quotes and write a power of ten as 1.0e-4",
    ),
    (
        {**one(), "benchmark": {"providers": ["CudaExecutionProvider"]}},
        "benchmark.providers[0] is 'CudaExecutionProvider', must be one of: CPUExecutionProvider, CUDAExecutionProvider, TensorrtExecutionProvider, MIGraphXExecutionProvider, OpenVINOExecutionProvider, DnnlExecutionProvider, XnnpackExecutionProvider, CoreMLExecutionProvider, DmlExecutionProvider, QNNExecutionProvider. Did you mean 'QNNExecutionProvider'?",
    ),
    (
        one(release={"fixed_shapes": {"w8a16": [[1, 128]]}}),
        "models.X.release.fixed_shapes.w8a16 is no variant of this model: its variants are fp32, optimized, int8",
    ),
    (
        one(release={"fixed_shapes": {"fp32": [[1, 0]]}}),
        "models.X.release.fixed_shapes.fp32[0][1] is 0, must be at least 1",
    ),
    ({**one(), "benchmark": {"machines": "icelake"}}, "benchmark.machines is 'icelake', must be a list"),
    ({**one(), "benchmark": {"machines": [7]}}, "benchmark.machines[0] is 7, must be text: put it in quotes"),
    ({**one(), "benchmark": {"pytorch": 1}}, "benchmark.pytorch is 1, must be true or false"),
    (one(allow_floating_revision="yes"), "models.X.allow_floating_revision is 'yes', must be true or false"),
    (
        {**one(), "parity": {"thresholds": {"fp32": {"max_abs_diff": "1e-4"}}}},
        "parity.thresholds.fp32.max_abs_diff is '1e-4', must be a finite number or null: YAML reads it as text, so leave out quotes and write a power of ten as 1.0e-4",
    ),
    (
        {**one(), "parity": {"thresholds": {"fp32": {"cosine_min": False}}}},
        "parity.thresholds.fp32.cosine_min is false, must be a finite number or null",
    ),
    (
        {**one(), "parity": {"thresholds": {"fp32": {"cosine_min": math.nan}}}},
        "parity.thresholds.fp32.cosine_min is .nan, must be a finite number or null",
    ),
    (
        {**one(), "parity": {"thresholds": {"fp32": {"max_abs_diff": math.inf}}}},
        "parity.thresholds.fp32.max_abs_diff is .inf, must be a finite number or null",
    ),
]

WRONG_VALUES = [
    ({}, "models is missing: The models to convert, by name. Results are written to the folder results/NAME."),
    ({"models": {}}, "models is empty, must hold at least one model"),
    (
        {"models": {"X": {}}},
        "models.X.source is missing: Where the model comes from. Exactly one of hub, package and path.",
    ),
    (
        one(task="summarization"),
        "models.X.task is 'summarization', must be one of: text-generation, text2text-generation, speech-to-text, image-to-text, image-text-to-text, feature-extraction, sentence-similarity, text-classification, token-classification, question-answering, fill-mask, multiple-choice, image-classification, image-feature-extraction, object-detection, semantic-segmentation, image-segmentation, depth-estimation, text-recognition, zero-shot-image-classification, zero-shot-object-detection, image-to-image, audio-classification, automatic-speech-recognition, audio-frame-classification, audio-xvector, null.",
    ),
    (
        {**one(), "variants": ["fp32", "INT9"]},
        "variants[1] is 'INT9', must be one of: fp32, optimized, fp16, int8, uint8, int8-invariant, int8-static, int8-symmetric, w8a16, w8, q4, q4-cpu, q4f16. Did you mean 'int8'?",
    ),
    ({**one(), "variants": ["fp32", "fp32"]}, "variants is ['fp32', 'fp32'], which lists 'fp32' twice"),
    ({**one(), "variants": []}, "variants is empty, must hold at least one entry"),
    (one(benchmark={"threads": []}), "models.X.benchmark.threads is empty, must hold at least one entry"),
    (one(benchmark={"threads": [0]}), "models.X.benchmark.threads[0] is 0, must be at least 1"),
    ({**one(), "benchmark": {"batch_sizes": [1, 0]}}, "benchmark.batch_sizes[1] is 0, must be at least 1"),
    ({**one(), "benchmark": {"batch_sizes": [4, 4]}}, "benchmark.batch_sizes is [4, 4], which lists 4 twice"),
    ({**one(), "benchmark": {"machines": [""]}}, "benchmark.machines[0] is empty text"),
    ({**one(), "benchmark": {"machines": ["a", "a"]}}, "benchmark.machines is ['a', 'a'], which lists 'a' twice"),
    (
        {**one(), "benchmark": {"machines": ["icelake", "a|b"]}},
        "benchmark.machines[1] is 'a|b', must be one kind of node as its scheduler calls it, of the letters A-Z and a-z, digits, '.', '_' and '-', and begin with a letter, a digit or '_': it names a folder too",
    ),
    (
        one(benchmark={"machines": ["a/b"]}),
        "models.X.benchmark.machines[0] is 'a/b', must be one kind of node as its scheduler calls it, of the letters A-Z and a-z, digits, '.', '_' and '-', and begin with a letter, a digit or '_': it names a folder too",
    ),
    (
        one(benchmark={"machines": [".."]}),
        "models.X.benchmark.machines[0] is '..', must be one kind of node as its scheduler calls it, of the letters A-Z and a-z, digits, '.', '_' and '-', and begin with a letter, a digit or '_': it names a folder too",
    ),
    (
        one(benchmark={"machines": ["a\n"]}),
        "models.X.benchmark.machines[0] is 'a\\n', must be one kind of node as its scheduler calls it, of the letters A-Z and a-z, digits, '.', '_' and '-', and begin with a letter, a digit or '_': it names a folder too",
    ),
    (
        {**one(), "benchmark": {"machines": ["a" * 64]}},
        "benchmark.machines[0] is 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', must have at most 63 characters, this one has 64",
    ),
    (
        {**one(), "benchmark": {"machines": ["int8"]}},
        "benchmark.machines[0] is 'int8', which is a variant's name, and in results/MODEL/benchmark the two would be mistaken",
    ),
    (
        one(benchmark={"machines": ["pytorch"]}),
        "models.X.benchmark.machines[0] is 'pytorch', which is a variant's name, and in results/MODEL/benchmark the two would be mistaken",
    ),
    ({**one(), "benchmark": {"warmup": -1}}, "benchmark.warmup is -1, must be at least 0"),
    ({**one(), "parity": {"batch_size": 0}}, "parity.batch_size is 0, must be at least 1"),
    (
        {**one(), "parity": {"thresholds": {"int8": {"cosine_min": 1.5}}}},
        "parity.thresholds.int8.cosine_min is 1.5, must be between -1 and 1",
    ),
    (
        {**one(), "parity": {"thresholds": {"int8": {"top1_agreement": -0.1}}}},
        "parity.thresholds.int8.top1_agreement is -0.1, must be between 0 and 1",
    ),
    (
        one(parity={"thresholds": {"int8": {"mean_kl": -1}}}),
        "models.X.parity.thresholds.int8.mean_kl is -1, must be at least 0",
    ),
    (
        {**one(), "parity": {"evaluation_texts": "no.txt"}},
        "parity.evaluation_texts is 'no.txt', but there is no such file in {folder}",
    ),
    (
        one(parity={"evaluation_texts": "a/no.jsonl"}),
        "models.X.parity.evaluation_texts is 'a/no.jsonl', but there is no such file in {folder}",
    ),
    (
        {**one(), "parity": {"evaluation_texts": "a.csv"}},
        "parity.evaluation_texts is 'a.csv', must end in .jsonl or .txt",
    ),
    ({**one(), "parity": {"evaluation_texts": ""}}, "parity.evaluation_texts is empty text"),
    (
        one(quantization={"calibration_texts": "no.txt"}),
        "models.X.quantization.calibration_texts is 'no.txt', but there is no such file in {folder}",
    ),
    (
        {**one(), "quantization": {"targets": {"fp32": {}}}},
        "quantization.targets.fp32 (seen: {}) is an unknown key. It belongs in parity.thresholds or release.fixed_shapes."
        + allowed("quantization.targets"),
    ),
    (
        one({"hub": "a/b", "revision": "main"}, allow_remote_code=True, allow_floating_revision=True),
        "models.X.allow_remote_code is true, but code is run only from a hub source whose revision is a commit, 40 hexadecimal digits in lower case: elsewhere it could change unseen",
    ),
    (
        one({"hub": "a/b", "revision": "a..b"}, allow_floating_revision=True),
        f"models.X.source.revision is 'a..b', no name of a commit, branch or tag: {ADVICE}",
    ),
]

WRONG_SOURCES = [
    (
        {**HUB, "path": "a"},
        "models.X.source names two sources: hub and path; give exactly one of: hub (with revision), package (with path), path",
    ),
    (
        {**HUB, "path": "a", "package": "b"},
        "models.X.source names three sources: hub, package and path; give exactly one of: hub (with revision), package (with path), path",
    ),
    (
        {"revision": COMMIT},
        "models.X.source is {'revision': '0123456789abcdef0123456789abcdef01234567'}, which names no source: give exactly one of: hub (with revision), package (with path), path",
    ),
    (
        {},
        "models.X.source is {}, which names no source: give exactly one of: hub (with revision), package (with path), path",
    ),
    (
        {"package": "demo"},
        "models.X.source.path is missing: it says which folder of the package 'demo' holds the model",
    ),
    ({"hub": "a/b"}, f"models.X.source.revision is missing: {ADVICE}"),
    (
        {"path": "..", "revision": "main"},
        "models.X.source.revision is 'main', but only a hub source has revisions: remove it",
    ),
    (
        {"path": "..", "allow_floating_revision": True},
        "models.X.source.allow_floating_revision is true, but only a hub source has revisions: remove it",
    ),
    ({**HUB, "revision": "main"}, f"models.X.source.revision is 'main', a branch or tag, which may move: {ADVICE}"),
    ({**HUB, "revision": "0123abc"}, f"models.X.source.revision is '0123abc', a shortened commit: {ADVICE}"),
    (
        {**HUB, "revision": COMMIT.upper()},
        "models.X.source.revision is '0123456789ABCDEF0123456789ABCDEF01234567', must be in lower case",
    ),
    (
        {**HUB, "revision": COMMIT + "\n"},
        f"models.X.source.revision is '0123456789abcdef0123456789abcdef01234567\\n', no name of a commit, branch or tag: {ADVICE}",
    ),
    (
        {**HUB, "revision": "<40-hex commit>"},
        f"models.X.source.revision is '<40-hex commit>', no name of a commit, branch or tag: {ADVICE}",
    ),
    ({**HUB, "revision": ""}, "models.X.source.revision is empty text"),
    (
        {**HUB, "hub": "https://example.org/a/b"},
        "models.X.source.hub is 'https://example.org/a/b', must be a repository's id, written owner/name",
    ),
    (
        {"package": "no-such-thing", "path": "a"},
        "models.X.source.package is 'no-such-thing', but no installed distribution has this name",
    ),
    (
        {"package": "demo-model", "path": "../x"},
        "models.X.source.path is '../x', must be relative and stay inside the package 'demo-model'",
    ),
    (
        {"package": "demo-model", "path": "/etc"},
        "models.X.source.path is '/etc', must be relative and stay inside the package 'demo-model'",
    ),
    (
        {"package": "demo-model", "path": "demo/mmodel"},
        "models.X.source.path is 'demo/mmodel', but the package 'demo-model' has no such folder. Did you mean 'demo/model'?",
    ),
    (
        {"package": "demo-model", "path": "elsewhere"},
        "models.X.source.path is 'elsewhere', but the package 'demo-model' has no such folder.",
    ),
    (
        {"path": "a/missing"},
        "models.X.source.path is 'a/missing', must be a folder that holds the model, and in {folder} there is no such folder",
    ),
    (
        {"path": "a" * 5000},
        "models.X.source.path is 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa...aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', must be a folder that holds the model, and in {folder} there is no such folder",
    ),
    (
        {"path": "a\0b"},
        "models.X.source.path is 'a\\x00b', must be a folder that holds the model, and in {folder} there is no such folder",
    ),
    (
        {"path": "file"},
        "models.X.source.path is 'file', must be a folder that holds the model, and in {folder} there is a file, not a folder",
    ),
    (
        {"package": "demo-model", "path": "demo/model"},
        "models.X.source.path is 'demo/model', which cannot be used: there are no weights; one of these is needed: model.safetensors, model.safetensors.index.json, pytorch_model.bin, pytorch_model.bin.index.json",
    ),
    ({"path": "empty"}, "models.X.source.path is 'empty', which cannot be used: there is no config.json"),
]

WRONG_AUDITS = [
    (
        {"theirs": {}},
        "models.X.audits.theirs is {}, must have exactly one of: hub (with revision), path",
    ),
    (
        {"theirs": {**HUB, "path": "empty"}},
        f"models.X.audits.theirs is {{'hub': 'owner/name', 'path': 'empty', 'revision': '{COMMIT}'}}, must have exactly one of: hub (with revision), path",
    ),
    ({"theirs": {"hub": "owner/name"}}, f"models.X.audits.theirs.revision is missing: {ADVICE}"),
    (
        {"theirs": {"hub": "owner/name", "revision": "main"}},
        f"models.X.audits.theirs.revision is 'main', a branch or tag, which may move: {ADVICE}",
    ),
    (
        {"theirs": {"path": "empty", "revision": COMMIT}},
        f"models.X.audits.theirs.revision is '{COMMIT}', but only a hub source has revisions: remove it",
    ),
    (
        {"theirs": {"path": "absent"}},
        "models.X.audits.theirs.path is 'absent', but there is no such folder in {folder}",
    ),
    (
        {"a/b": {"path": "empty"}},
        "models.X.audits.'a/b' is no audit's name: it must consist of the letters A-Z and a-z, digits, '.', '_' and '-', and begin with a letter, a digit or '_', because it names a folder",
    ),
]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        *UNKNOWN_KEYS,
        *MISPLACED_KEYS,
        *WRONG_TYPES,
        *WRONG_VALUES,
        *((one(source), message) for source, message in WRONG_SOURCES),
        *((one(audits=audits), message) for audits, message in WRONG_AUDITS),
    ],
    ids=itertools.count(),
)
def test_a_mistake_gives_one_sentence(config, message, distribution_folder, monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(distribution_folder))
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    assert told_problem(config, tmp_path) == message.replace("{folder}", str(tmp_path))


# ------------------------------------------------------------------------------------------------------- names

NO_NAME = (
    " is no model's name: it must consist of the letters A-Z and a-z, digits, '.', '_' and '-', and begin with a "
    "letter, a digit or '_', because it names a folder in results/"
)
NO_TEXT = " is not text, as a model's name must be, because YAML reads it otherwise: put it in quotes"
RESERVED = "; reserved are: logs, summary.csv, report.html"
NAMES = [
    *(
        (name, f"models.{name!r}{NO_NAME}")
        for name in ("a/b", "..", ".", "", ".a", "-a", "a b", "é", "a\n", "a{b}", "a@b", "a\\b")
    ),
    (123, f"models.123{NO_TEXT}"),
    (None, f"models.null{NO_TEXT}"),
    (True, f"models.true{NO_TEXT}"),
    (1.5, f"models.1.5{NO_TEXT}"),
    ("logs", f"models.logs has a name that results/logs takes{RESERVED}"),
    ("Logs", f"models.Logs has a name that results/logs takes{RESERVED}"),
    ("summary.csv", f"models.summary.csv has a name that results/summary.csv takes{RESERVED}"),
    ("REPORT.html", f"models.REPORT.html has a name that results/report.html takes{RESERVED}"),
    ("a" * 101, f"models.{'a' * 101} has 101 characters, but a model's name must have at most 100"),
]


@pytest.mark.parametrize(("name", "message"), NAMES)
def test_a_wrong_name_gives_one_sentence(name, message):
    assert told_problem({"models": {name: {"source": HUB}}}) == message


def test_names_that_differ_by_letter_case_give_one_sentence():
    assert told_problem({"models": {"Model": {"source": HUB}, "model": {"source": HUB}}}) == (
        "models.model differs from models.Model by letter case only, and on some systems their folders would be one"
    )


# -------------------------------------------------------------------------------- tables and further configurations


UNKNOWN_COLUMN = (
    " A column is called name, hub, revision, package, path, or like another key of a model: task, benchmark.threads, …"
)
TABLES = [
    ("", "models.csv: is empty: its first line must name the columns"),
    (f"hub,revision\na/b,{COMMIT}\n", "models.csv, line 1: has no column name, which must hold each model's name"),
    ("name,hubb\na,b\n", f"models.csv, line 1: the column 'hubb' is unknown. Did you mean 'hub'?{UNKNOWN_COLUMN}"),
    ("name,hub,hub\na,b,c\n", "models.csv, line 1: the column 'hub' is there twice"),
    (
        "name,hub\na,b,c,d\n",
        "models.csv: not a table: Expected 2 fields in line 2, saw 4; a cell that holds the separator needs quotes",
    ),
    (b"name,hub\n\xff,b\n", "models.csv: not UTF-8 text: invalid start byte at byte 9"),
    ("name,path\n,x\n", "models.csv, line 2, column name: is empty, must be the model's name"),
    ("name,path\na,.\n\na,.\n", "models.csv, line 4, column name: the model 'a' was given on line 2 already"),
    (
        f"name,hub,revision,benchmark.threads\na,a/b,{COMMIT},1 many\n",
        "models.csv, line 2, column benchmark.threads: models.a.benchmark.threads[1] is 'many', must be a whole number",
    ),
    (
        "name,path\na,absent\n",
        "models.csv, line 2, column path: models.a.source.path is 'absent', must be a folder that holds the model, and in {folder} there is no such folder",
    ),
    ("name,hub\na,a/b\n", f"models.csv, line 2: models.a.source.revision is missing: {ADVICE}"),
    (f"name,hub,revision\na/b,a/b,{COMMIT}\n", f"models.csv, line 2: models.'a/b'{NO_NAME}"),
    (
        f"name,hub,revision\na,a/b,{COMMIT}\na.b,a/b,{COMMIT[:7]}\n",
        f"models.csv, line 3, column revision: models.a.b.source.revision is '0123456', a shortened commit: {ADVICE}",
    ),
    ("name,hub\n", "models.csv: models is empty, must hold at least one model"),
]
CONFIGURATIONS = [
    (
        f"models: {{a: {{source: {{hub: a/b, revision: {COMMIT}}}, thraeds: 1}}}}",
        "more.yaml: models.a.thraeds (seen: 1) is an unknown key." + allowed("models.NAME"),
    ),
    (
        "models: {a: [}",
        "more.yaml: not YAML: line 1, column 14: expected the node content, but found '}' while parsing a flow node",
    ),
    ("models_from: [x.csv]\n", "more.yaml: models_from is allowed in config.yaml only: list the files there"),
    (
        "benchmark: {}\n",
        "more.yaml: models is missing: The models to convert, by name. Results are written to the folder results/NAME.",
    ),
    ("", "more.yaml: is empty: it must at least list models"),
]
PATTERNS = [
    ("absent.csv", "models_from[0] is 'absent.csv', but there is no such file in {folder}"),
    ("no/*.yaml", "models_from[0] is 'no/*.yaml', but there is no such file in {folder}"),
    ("models.xlsx", "models_from[0] is 'models.xlsx', must end in one of: .csv, .tsv, .yaml, .yml"),
]


def told_of_lists(folder, *patterns, **config):
    with pytest.raises(ConfigError) as caught:
        load_models({"models_from": list(patterns)} | config, folder)
    return str(caught.value).removeprefix("the configuration has a problem: ").replace(str(folder), "{folder}")


@pytest.mark.parametrize(("table", "message"), TABLES)
def test_a_mistake_in_a_table_gives_one_sentence_with_its_place(table, message, tmp_path):
    (tmp_path / "models.csv").write_bytes(table if isinstance(table, bytes) else table.encode())
    assert told_of_lists(tmp_path, "models.csv") == message


@pytest.mark.parametrize(("text", "message"), CONFIGURATIONS)
def test_a_mistake_in_a_further_configuration_gives_one_sentence_with_its_file(text, message, tmp_path):
    (tmp_path / "more.yaml").write_text(text)
    assert told_of_lists(tmp_path, "more.yaml") == message


@pytest.mark.parametrize(("pattern", "message"), PATTERNS)
def test_a_pattern_without_a_file_gives_one_sentence(pattern, message, tmp_path):
    assert told_of_lists(tmp_path, pattern) == message


def test_a_model_listed_in_two_files_gives_one_sentence(tmp_path):
    row = f"org/a,{COMMIT}"
    (tmp_path / "a.csv").write_text(f"name,hub,revision\nx,{row}\n")
    (tmp_path / "b.csv").write_text(f"name,hub,revision\ny,{row}\nX,{row}\n")
    assert told_of_lists(tmp_path, "*.csv") == ("b.csv, line 3: models.X has a name that a.csv lists already, as 'x'")
    assert told_of_lists(tmp_path, "a.csv", models={"x": {"source": HUB}}) == (
        "a.csv, line 2: models.x has a name that config.yaml lists already, as 'x'"
    )


def test_no_models_at_all_give_one_sentence(tmp_path):
    assert told_of_lists(tmp_path) == "models is missing, and models_from lists no file"


# ------------------------------------------------------------------------------------------- the YAML's text

TEXTS = [
    (
        "models:\n  a: 1\n  b: 2\n  a: 3\n",
        " has a problem: line 4: the key 'a' was given on line 2 already",
    ),
    ("models: {a: 1, 'a': 2}\n", " has a problem: line 1: the key 'a' was given on line 1 already"),
    ("variants: [{x: 1, x: 2}]\n", " has a problem: line 1: the key 'x' was given on line 1 already"),
    ("? {k: 1, k: 2}\n: 3\n", " has a problem: line 1: the key 'k' was given on line 1 already"),
    (
        "a: 1\nb: 2\na: 3\na: 4\nb: 5\n",
        " has 3 problems:\n  line 3: the key 'a' was given on line 1 already\n"
        "  line 4: the key 'a' was given on line 1 already\n  line 5: the key 'b' was given on line 2 already",
    ),
    ("", " has a problem: is empty: it must at least list models"),
    ("# nothing\n", " has a problem: is empty: it must at least list models"),
    ("- a\n", " has a problem: line 1: must hold keys at its top level, such as models:"),
    ("\n\nword\n", " has a problem: line 3: must hold keys at its top level, such as models:"),
    ("a: 1\n---\nb: 2\n", " has a problem: holds 2 YAML documents, must hold one"),
    ("a: &x [1, *x]\n", " has a problem: line 1: *x stands inside &x, so it would never end"),
    ("a: *x\n", " has a problem: line 1: *x refers to &x, which stands nowhere above"),
    ("a: " + "[" * 100_000, " has a problem: line 1: nested more than 50 levels deep"),
    ("a: " + "[" * 60 + "]" * 60, " has a problem: line 1: nested more than 50 levels deep"),
    ("a: b: c\n", ": not YAML: line 1, column 5: mapping values are not allowed here"),
    (
        "a:\n\t- b\n",
        ": not YAML: line 2, column 1: found character '\\t' that cannot start any token while scanning for the next token (write spaces: YAML refuses tabs here)",
    ),
    (
        "a:\tb\n",
        ": not YAML: line 1, column 3: found character '\\t' that cannot start any token while scanning for the next token (write spaces: YAML refuses tabs here)",
    ),
    (
        "a: [1\nb: 2\n",
        ": not YAML: line 2, column 2: expected ',' or ']', but got ':' while parsing a flow sequence",
    ),
    (b"a: \xff\n", ": not UTF-8 text: invalid start byte at byte 3"),
    (
        "a: \x00\n",
        ': not YAML: unacceptable character #x0000: special characters are not allowed in "<unicode string>", position 3',
    ),
]


@pytest.mark.parametrize(("text", "message"), TEXTS, ids=itertools.count())
def test_a_mistake_in_the_text_gives_one_sentence_with_its_line(text, message, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError) as caught:
        check_yaml_text(path)
    assert str(caught.value) == f"{path}{message}"


# ---------------------------------------------------------------------------------------------------- machines

KINDS = {"benchmark": {"machines": ["icelake", "genoa"]}}
ONCE = {"benchmark": {"machines": []}}
STAYS = (
    " is ['icelake', 'genoa'], but the jobs of this run stay on this machine, whatever kind it is: run it on a "
    "cluster, as with --workflow-profile profiles/slurm, or set it to []"
)


@pytest.mark.parametrize(
    ("models", "config", "key"),
    [
        ({"m": KINDS}, KINDS, "benchmark.machines"),
        ({"m": ONCE, "n": KINDS}, {}, "models.n.benchmark.machines"),
        ({"m": ONCE, "n": KINDS}, {"benchmark": {"machines": ["other"]}}, "models.n.benchmark.machines"),
    ],
)
def test_kinds_of_machines_on_this_machine_give_one_sentence(models, config, key):
    with pytest.raises(UserError) as caught:
        check_machines(models, config, False, {})
    assert str(caught.value) == f"{key}{STAYS}"


@pytest.mark.parametrize("rule", ["benchmark", "benchmark_pytorch", "benchmark_on_machine"])
@pytest.mark.parametrize("resource", ["constraint", "machine_type"])
def test_a_profile_that_puts_benchmarks_elsewhere_gives_one_sentence(rule, resource):
    with pytest.raises(UserError) as caught:
        check_machines({"m": KINDS}, KINDS, True, {rule: {resource: "sapphire"}})
    assert str(caught.value) == (
        "benchmark.machines is ['icelake', 'genoa'], but set-resources, in a profile or on the command line, gives the "
        f"rule {rule} a {resource}, and that would be measured instead: remove it there, or set benchmark.machines to []"
    )
