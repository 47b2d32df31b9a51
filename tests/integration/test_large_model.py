"""A model of more than 2 GB, which no single ONNX file holds, through the whole workflow, and what each job held."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from onnx import load as load_onnx

from project import make_project
from tiny_models import write_tokenizer

pytestmark = [pytest.mark.slow, pytest.mark.long]

LEAST_BYTES = 2_200_000_000
#: How much of the weights a job may hold: peak resident memory, pages of mapped files included, over their bytes.
MOST_TIMES = 2.5

#: Stands for ``python``: runs the real one and notes its script, what it made, and its peak memory in KiB.
WATCHER = """#!{python}
import os, sys
pid = os.fork()
if not pid:
    os.execv({python!r}, [{python!r}, *sys.argv[1:]])
_, status, usage = os.wait4(pid, 0)
name = os.path.basename(sys.argv[1]) if len(sys.argv) > 1 else ""
last = [value for value in sys.argv if value.startswith("results/")][-1:]
with open({log!r}, "a") as log:
    print(name, *last, usage.ru_maxrss, sep="\\t", file=log)
sys.exit(os.waitstatus_to_exitcode(status))
"""


def save_large_model(folder: Path) -> int:
    """Save an encoder of the shape of XLM-R large, with random weights; return their bytes."""
    import torch
    from transformers import BertConfig, BertModel

    write_tokenizer(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
    model = BertModel(BertConfig(vocab_size=250_002, max_position_embeddings=514, **sizes))
    model.save_pretrained(folder)
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run; the project, the bytes of the weights, and a line for each job that ran a script."""
    project = make_project(tmp_path_factory.mktemp("large"))
    weights = save_large_model(project.folder / "models" / "large")
    project.configure(
        project.config
        | {"models": {"large": {"source": {"path": "models/large"}}}, "variants": ["fp32", "optimized", "int8"]}
        | {"benchmark": project.config["benchmark"] | {"batch_sizes": [1], "rounds": 1}}
    )
    watcher, log = project.folder / "watched" / "python", project.folder / "memory.tsv"
    watcher.parent.mkdir()
    watcher.write_text(WATCHER.format(python=sys.executable, log=str(log)))
    watcher.chmod(0o755)
    paths = (watcher.parent, Path(sys.executable).parent, os.environ["PATH"])
    run = subprocess.run(
        ["snakemake", "--cores", "2", "--jobs", "1"],
        cwd=project.folder,
        env=os.environ | {"PATH": os.pathsep.join(map(str, paths))},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    logs = "".join(path.read_text() for path in (project.folder / "results/logs").rglob("large*.log"))
    assert run.returncode == 0, run.stdout + logs
    return project, weights, [line.split("\t") for line in log.read_text().splitlines()]


def test_every_job_holds_no_more_than_a_few_times_the_weights(finished):
    _, weights, jobs = finished
    assert weights >= LEAST_BYTES
    peaks = {(script, made): int(kib) * 1024 / weights for script, made, kib in jobs}
    for (script, made), times in sorted(peaks.items(), key=lambda peak: -peak[1]):
        print(f"{times:5.2f} x {weights / 1e9:.2f} GB  {script} {made}")
    scripts = {script for script, _ in peaks}
    assert scripts >= {f"{step}.py" for step in ("export", "optimize", "quantize", "measure_parity", "release")}
    assert {job: times for job, times in peaks.items() if times > MOST_TIMES} == {}


def test_the_release_holds_what_was_proven(finished):
    project, weights, _ = finished
    results = project.folder / "results" / "large"
    manifest = json.loads((results / "release" / "manifest.json").read_text())
    for variant, file in (("fp32", "model.onnx"), ("int8", "model_quantized.onnx")):
        assert manifest["variants"][variant]["gate"]["passed"]
        made = {path.name for path in (results / "release" / "onnx").glob(f"{file}*")}
        # model.onnx.data holds no weights: transformers' ExportedModel looks for it.
        assert made == ({file, f"{file}_data", f"{file}.data"} if variant == "fp32" else {file})
        load_onnx(results / "release" / "onnx" / file, load_external_data=False)
    assert json.loads((results / "verified.json").read_text())["passed"]
    int8 = (results / "release/onnx/model_quantized.onnx").stat().st_size
    assert int8 < 0.26 * weights
