"""From a gated repository on a faulty Hub to a release, with the configuration of the README's Hub example.

FULL_SIZE=1 gives the model the size of the original, 167 million parameters: some ten minutes and 6 GB of memory.
"""

import os
import re
from pathlib import Path

import pytest

from card_programs import run_program
from hub_server import HubServer
from project import CONFIG, ROOT, Project, make_project
from tiny_models import WORDS

pytestmark = [pytest.mark.slow, pytest.mark.long]

REPO = "nlptown/bert-base-multilingual-uncased-sentiment"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_SecretThatNoFileMayHold"
SIZES = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
#: Random weights make no promise about int8.
INT8_LIMITS = {"cosine_min": None, "max_probability_diff": None, "batch_cosine_min": None, "top1_agreement": 0.0}
VOCABULARY = 105_879 if os.environ.get("FULL_SIZE") else 500


@pytest.fixture(scope="module")
def repository(tmp_path_factory) -> Path:
    """A folder such as the original repository is: one model in several formats, and its tokenizer."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

    folder = tmp_path_factory.mktemp("repository")
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz.,!", *WORDS]
    pieces = list(dict.fromkeys(pieces))
    pieces += [f"piece{number}" for number in range(VOCABULARY - len(pieces))]
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n")
    BertTokenizerFast(str(folder / "vocab.txt"), do_lower_case=True, model_max_length=512).save_pretrained(folder)
    torch.manual_seed(0)
    labels = {number: f"{number + 1} star{'s' if number else ''}" for number in range(5)}
    sizes = {} if os.environ.get("FULL_SIZE") else SIZES
    config = BertConfig(vocab_size=VOCABULARY, id2label=labels, label2id={v: k for k, v in labels.items()}, **sizes)
    BertForSequenceClassification(config).save_pretrained(folder)
    for other in ("pytorch_model.bin", "tf_model.h5", "flax_model.msgpack"):
        (folder / other).write_bytes(b"the same weights in another format")
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# Stars\n")
    return folder


@pytest.fixture(scope="module")
def released(tmp_path_factory, repository) -> Project:
    """A project whose one model came through a Hub that fails in several ways on the way."""
    project = make_project(tmp_path_factory.mktemp("project"))
    example = re.search(r"^  # (bert-base-.*:)\n  # ( +source: .*)$", (ROOT / "config.yaml").read_text(), re.MULTILINE)
    assert REPO in example[2]
    project.configure(
        CONFIG
        | {"models": {example[1].rstrip(":"): {"source": {"hub": REPO, "revision": COMMIT}}}}
        | {"parity": {"evaluation_texts": "texts.txt", "thresholds": {"int8": INT8_LIMITS}}}
    )
    with HubServer() as hub, HubServer() as storage, pytest.MonkeyPatch.context() as environment:
        for server in (hub, storage):
            server.add(REPO, repository, COMMIT, gated=True)
        hub.storage_url = storage.url
        hub.fail("GET", "/api/", status=429, headers={"Retry-After": "0"})
        storage.fail("GET", "/lfs/", body="truncate")
        for key, value in {
            "HF_ENDPOINT": hub.url,
            "HF_TOKEN": TOKEN,
            "HF_HOME": str(project.folder / "hf"),
            "NO_PROXY": "127.0.0.1",
        }.items():
            environment.setenv(key, value)
        run = project.snakemake(timeout=3000)
        assert run.returncode == 0, run.stdout
        assert TOKEN not in run.stdout
        assert {seen.path for seen in storage.served("GET")} == {storage.served("GET")[0].path}
        assert sum(storage.sent.values()) == (repository / "model.safetensors").stat().st_size
    return project


#: What Optimum answers, asked in its own environment.
WITH_OPTIMUM = """
from optimum.onnxruntime import ORTModelForSequenceClassification
from transformers import AutoTokenizer, pipeline

model = ORTModelForSequenceClassification.from_pretrained(".", subfolder="onnx", file_name="model.onnx")
answer = pipeline("text-classification", model=model, tokenizer=AutoTokenizer.from_pretrained("."))({text!r})[0]
"""


def test_the_release_answers_as_the_original(released, repository, optimum_python):
    from transformers import AutoTokenizer, pipeline

    release = released.folder / "results/bert-base-multilingual-uncased-sentiment/release"
    text = "the battery is really good"
    tokenizer = AutoTokenizer.from_pretrained(repository)
    expected = pipeline("text-classification", str(repository), tokenizer=tokenizer)(text)[0]
    found = run_program(WITH_OPTIMUM.format(text=text), release, ["answer"], optimum_python)["answer"]
    assert found["label"] == expected["label"]
    assert found["label"].endswith(("star", "stars"))
    assert found["score"] == pytest.approx(expected["score"], abs=1e-4)


def test_no_file_holds_the_token(released):
    files = [path for path in released.folder.rglob("*") if path.is_file()]
    assert [path for path in files if TOKEN.encode() in path.read_bytes()] == []
