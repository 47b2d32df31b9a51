"""Compare what each client answers from a release with what PyTorch answered: the table of docs/clients.md.

    python tests/compare_clients.py results/*/release --node-modules FOLDER --output docs/clients.md

Every client gets the golden texts one by one, reads the release as its users do, and must give PyTorch's recorded
answers: class probabilities, sentence embeddings, or token vectors.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "workflow" / "scripts"))

from onnxproof.figures import format_figure
from onnxproof.metrics import cosine_similarity, log_probabilities
from verify_release import Golden, read_golden

#: Task → the class of Optimum that gives its answers.
TASKS = {
    "text-classification": "ORTModelForSequenceClassification",
    "sentence-similarity": "ORTModelForCustomTasks",
    "feature-extraction": "ORTModelForFeatureExtraction",
}
#: Task → the class of Optimum that a pipeline takes, and the pipeline's name.
PIPELINES = {
    "text-classification": ("ORTModelForSequenceClassification", "text-classification"),
    "sentence-similarity": ("ORTModelForFeatureExtraction", "feature-extraction"),
    "feature-extraction": ("ORTModelForFeatureExtraction", "feature-extraction"),
}
#: The files that transformers.js finds, by the names it has for them.
DTYPES = {"onnx/model.onnx": "fp32", "onnx/model_quantized.onnx": "q8"}
NODE_SCRIPT = Path(__file__).with_name("transformers_js_answers.mjs")

Answers = np.ndarray


@dataclass
class Release:
    """A release folder, one of its ONNX files, and the texts to answer."""

    folder: Path
    task: str
    file: str
    texts: list[str]

    @property
    def labels(self) -> list[str]:
        names = json.loads((self.folder / "config.json").read_text(encoding="utf-8"))["id2label"]
        return [names[str(index)] for index in range(len(names))]


def expected_answers(task: str, golden: Golden, tokens: bool) -> Answers:
    """Return PyTorch's answers, one row a text, or one row a token."""
    if task == "text-classification":
        return np.exp(log_probabilities(np.stack([output["logits"] for output in golden.outputs])))
    if tokens:
        return np.concatenate([output["last_hidden_state"] for output in golden.outputs])
    return np.stack([output["sentence_embedding"] for output in golden.outputs])


def load_optimum(release: Release, class_name: str) -> tuple[Any, Any]:
    """Return Optimum's model, on one thread, and the tokenizer."""
    import onnxruntime
    import optimum.onnxruntime
    from transformers import AutoTokenizer

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    model_class = getattr(optimum.onnxruntime, class_name)
    model = model_class.from_pretrained(
        release.folder, subfolder="onnx", file_name=release.file.removeprefix("onnx/"), session_options=options
    )
    return model, AutoTokenizer.from_pretrained(release.folder)


def ask_optimum(release: Release) -> Answers:
    """Answer with Optimum's model class for the task; the one for embeddings is the class that keeps every output."""
    model, tokenizer = load_optimum(release, TASKS[release.task])
    rows = []
    for text in release.texts:
        outputs = model(**tokenizer(text, truncation=True, return_tensors="np"))
        if release.task == "text-classification":
            rows.append(np.exp(log_probabilities(outputs["logits"])))
        elif release.task == "sentence-similarity":
            rows.append(outputs["sentence_embedding"])
        else:
            rows.append(outputs["last_hidden_state"][0])
    return np.concatenate(rows)


def ask_optimum_pipeline(release: Release) -> Answers:
    """Answer with a transformers pipeline on Optimum's model; for embedders that gives token vectors."""
    from transformers import pipeline

    model_class, task = PIPELINES[release.task]
    model, tokenizer = load_optimum(release, model_class)
    pipe = pipeline(task, model=model, tokenizer=tokenizer)
    if release.task == "text-classification":
        answers = pipe(release.texts, top_k=None, truncation=True, function_to_apply="softmax")
        scores = [{entry["label"]: entry["score"] for entry in answer} for answer in answers]
        return np.array([[score[label] for label in release.labels] for score in scores])
    return np.concatenate([np.array(pipe(text, truncation=True)[0]) for text in release.texts])


def ask_sentence_transformers(release: Release) -> Answers:
    """Answer with sentence-transformers' ONNX backend."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(
        str(release.folder), backend="onnx", model_kwargs={"file_name": release.file}, local_files_only=True
    )
    return np.concatenate([model.encode([text]) for text in release.texts])


def ask_onnxruntime(release: Release) -> Answers:
    """Answer with onnxruntime and tokenizers alone, with the tokenizer's own settings."""
    import onnxruntime
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(release.folder / "tokenizer.json"))
    session = onnxruntime.InferenceSession(release.folder / release.file, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    rows = []
    for text in release.texts:
        encoding = tokenizer.encode(text)
        values = {
            "input_ids": [encoding.ids],
            "attention_mask": [encoding.attention_mask],
            "token_type_ids": [encoding.type_ids],
        }
        outputs = session.run(None, {name: np.array(values[name]) for name in names})
        if release.task == "text-classification":
            rows.append(np.exp(log_probabilities(outputs[0])))
        else:
            rows.append(outputs[1] if release.task == "sentence-similarity" else outputs[0][0])
    return np.concatenate(rows)


def ask_like_fastembed(release: Release) -> Answers:
    """Answer as fastembed and other readers of the first output do: its tokens' mean, normalized.

    Not the library itself: what ``fastembed/text/onnx_text_model.py`` and ``pooled_normalized_embedding.py`` read.
    """
    import onnxruntime
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(release.folder / "tokenizer.json"))
    tokenizer.enable_truncation(
        json.loads((release.folder / "tokenizer_config.json").read_text(encoding="utf-8"))["model_max_length"]
    )
    session = onnxruntime.InferenceSession(release.folder / release.file, providers=["CPUExecutionProvider"])
    names = {value.name for value in session.get_inputs()}
    rows = []
    for text in release.texts:
        encoding = tokenizer.encode(text)
        ids = np.array([encoding.ids])
        values = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        first = session.run(None, {name: value for name, value in values.items() if name in names})[0]
        mean = first.mean(axis=1)
        rows.append(mean / np.linalg.norm(mean, axis=1, keepdims=True))
    return np.concatenate(rows)


def ask_transformers_js(release: Release, node_modules: Path) -> Answers:
    """Answer with transformers.js in Node; ``node_modules`` is where it was installed.

    The script is run from there, because Node looks for packages beside the script.
    """
    script = node_modules.parent / NODE_SCRIPT.name
    script.write_text(NODE_SCRIPT.read_text(encoding="utf-8"), encoding="utf-8")
    process = subprocess.run(
        ["node", script, release.folder.resolve(), release.task, DTYPES[release.file]],
        input=json.dumps(release.texts),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    if process.returncode:
        raise RuntimeError(f"node: {process.stderr[-2000:]}")
    answers = json.loads(process.stdout)
    if release.task == "text-classification":
        scores = [{entry["label"]: entry["score"] for entry in answer} for answer in answers]
        return np.array([[score[label] for label in release.labels] for score in scores])
    return np.concatenate([np.array(answer) for answer in answers])


EMBEDDERS = ("sentence-similarity",)
EVERY_TASK = tuple(TASKS)
#: Client → (how it answers, the tasks it serves, whether its answers to sentence embedders are token vectors).
CLIENTS: dict[str, tuple[Callable[[Release], Answers], tuple[str, ...], bool]] = {
    "Optimum": (ask_optimum, EVERY_TASK, False),
    "Optimum in a pipeline": (ask_optimum_pipeline, EVERY_TASK, True),
    "sentence-transformers": (ask_sentence_transformers, EMBEDDERS, False),
    "onnxruntime and tokenizers": (ask_onnxruntime, EVERY_TASK, False),
    "first output, as fastembed reads it": (ask_like_fastembed, EMBEDDERS, False),
}


def compare(folder: Path, node_modules: Path | None = None) -> list[dict[str, Any]]:
    """Return, for each client and ONNX file of a release, how far its answers are from PyTorch's.

    transformers.js 4.3 gets no text that must be cut: it cuts behind the special tokens, so that the last one is lost.
    """
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    golden = read_golden(folder)
    clients = dict(CLIENTS)
    if node_modules is not None:
        clients["transformers.js"] = (
            lambda release: ask_transformers_js(release, node_modules),
            EVERY_TASK,
            False,
        )
    # Sorted by length, so those that are not cut come first.
    lengths = np.array([len(item["input_ids"]) for item in golden.items[: golden.answered]])
    whole = int((lengths < golden.max_tokens).sum())
    rows = []
    for variant, facts in manifest["variants"].items():
        for client, (ask, tasks, in_tokens) in clients.items():
            in_node = client == "transformers.js"
            if manifest["task"] not in tasks or (in_node and facts["file"] not in DTYPES):
                continue
            count = whole if in_node else golden.answered
            release = Release(folder, manifest["task"], facts["file"], golden.texts[:count])
            tokens = in_tokens or release.task == "feature-extraction"
            expected = expected_answers(release.task, golden, tokens)
            answers = ask(release)
            expected = expected[: int(lengths[:count].sum()) if tokens else count]
            rows.append(
                {
                    "model": manifest["model"],
                    "client": client,
                    "variant": variant,
                    "compared": _what(release.task, tokens),
                    "texts": count,
                    "max_abs_diff": float(np.abs(answers - expected).max()),
                    "cosine_min": float(cosine_similarity(expected, answers).min()),
                }
            )
    return rows


def _what(task: str, tokens: bool) -> str:
    return "probabilities" if task == "text-classification" else "token vectors" if tokens else "embeddings"


def as_markdown(rows: list[dict[str, Any]]) -> str:
    """Return the rows as a Markdown table."""
    lines = [
        "| model | client | variant | compared | texts | largest difference | lowest cosine |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        figures = (format_figure(row["max_abs_diff"]), format_figure(row["cosine_min"]))
        cells = (row["model"], row["client"], row["variant"], row["compared"], str(row["texts"]), *figures)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main(argv: list[str] | None = None) -> None:
    """Compare the clients on some releases and write the table between the marks of the document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("releases", type=Path, nargs="+", help="release folders")
    parser.add_argument("--node-modules", type=Path, help="where npm installed @huggingface/transformers")
    parser.add_argument("--output", type=Path, help="document whose table is to be replaced")
    args = parser.parse_args(argv)
    table = as_markdown([row for folder in args.releases for row in compare(folder, args.node_modules)])
    if args.output is None:
        print(table)
        return
    before, _, rest = args.output.read_text(encoding="utf-8").partition("<!-- table -->\n")
    after = rest.partition("<!-- end of table -->\n")[2]
    args.output.write_text(f"{before}<!-- table -->\n{table}<!-- end of table -->\n{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
