"""What the pipeline makes of a model's folder, and what the folder's own public interface answers.

The first is the chain's steps in this process: download, reference, export. The second is what a user of the original
calls, and nothing of the pipeline: ``pipeline``, ``SentenceTransformer.encode``, ``CrossEncoder.predict``.
"""

import hashlib
import json
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import download
import export
import onnxproof.original.exporters as exporters
import record_reference
from onnxproof.checkpoint.reading import Checkpoint
from onnxproof.cli import UserError
from onnxproof.files import read_json
from onnxproof.inputs.synthetic import draw_images, synthesize_sounds
from onnxproof.release.tokenizer import settle_tokenizer

TEXTS = [
    "The battery is very good, and the screen works.",
    "It broke after two weeks! Never again.",
    "great",
    "I would buy this cable again and again, not the other.",
]
TOLERANCE = 1e-4
PER_TOKEN = ("token-classification", "text-generation", "feature-extraction")


@dataclass(frozen=True)
class Outcome:
    """Either the line that refuses a model, or where its release's files are, and its task."""

    refused: str | None = None
    folder: Path | None = None
    task: str = ""
    reference: dict[str, Any] | None = None


def run_steps(model: str, folder: Path, scratch: Path) -> Outcome:
    """Run download, reference and export, and settle the tokenizer as a release does.

    Anything but a ``UserError`` is passed on: it would have been a traceback.
    """
    source, texts = scratch / "source", scratch / "texts.txt"
    scratch.mkdir(parents=True, exist_ok=True)
    texts.write_text("\n".join(TEXTS))
    try:
        download.main(
            ["--model", model, "--path", str(folder), "--output-dir", str(source), "--manifest", f"{source}.json"]
        )
        reference = scratch / "reference"
        record_reference.record(model, source, None, texts, 1, 4, reference, scratch / "reference.json")
        export.export(model, source, None, scratch / "fp32", scratch / "fp32.json", "transformers")
    except UserError as error:
        return Outcome(refused=str(error))
    recorded = read_json(scratch / "reference.json")
    if longest := recorded["inputs"].get("max_tokens_of_model"):
        settle_tokenizer(scratch / "fp32", longest, recorded["padding"])
    return Outcome(None, scratch / "fp32", recorded["task"], recorded)


@contextmanager
def exported_once(cache: Path):
    """Export equal networks once: the graph of a network with the same configuration, weights and inputs is copied."""
    original = exporters.write_graphs

    def write_graphs(made: Any, folder: Path) -> Any:
        network = made.network
        digest = hashlib.sha256(repr((type(network).__name__, made.task, sorted(made.accepted))).encode())
        names = getattr(made.processor, "model_input_names", [])
        digest.update(repr((names, made.most_tokens, str(network))).encode())
        for name, values in sorted(network.state_dict().items()):
            digest.update(name.encode() + values.contiguous().numpy().tobytes())
        for module in network.modules():
            config = getattr(module, "config", None)
            if config is not None:
                settings = {key: value for key, value in config.to_dict().items() if key not in LABELS}
                digest.update(repr(sorted(settings.items(), key=str)).encode())
                break
        kept = cache / digest.hexdigest()
        if not kept.is_dir():
            stage = kept.with_suffix(".partial")
            shutil.rmtree(stage, ignore_errors=True)
            stage.mkdir(parents=True)
            (cache / f"{kept.name}.json").write_text(json.dumps(original(made, stage)))
            stage.rename(kept)
        shutil.copytree(kept, folder, dirs_exist_ok=True)
        return read_json(cache / f"{kept.name}.json")

    exporters.write_graphs = write_graphs
    try:
        yield
    finally:
        exporters.write_graphs = original


#: What changes no graph.
LABELS = ("id2label", "label2id", "architectures", "problem_type", "transformers_version", "_name_or_path", "dtype")


def answers_of_graph(outcome: Outcome) -> list[np.ndarray]:
    """Return what a client of a release gets: its tokenizer or processor, onnxruntime, and the first output wanted."""
    import onnxruntime

    assert outcome.folder is not None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(outcome.folder / "model.onnx", options, ["CPUExecutionProvider"])
    outputs = {"sentence-similarity": "sentence_embedding", "feature-extraction": "last_hidden_state"}
    output = outputs.get(outcome.task, "logits")
    answers = []
    for feed, width in feeds_of_release(outcome, session):
        rows = session.run([output], feed)[0]
        answers += [
            row if width is None else row[first:last]
            for row, (first, last) in zip(rows, width or [(0, None)] * len(rows), strict=True)
        ]
    return answers


def feeds_of_release(outcome: Outcome, session: Any):
    """Yield batches of model inputs, each with the tokens of each row where answers are a token each."""
    from transformers import AutoFeatureExtractor, AutoImageProcessor

    folder, task = outcome.folder, outcome.task
    inputs = {value.name: value for value in session.get_inputs()}
    if task.startswith("image"):
        processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
        for image in draw_images(2, 1):
            yield {"pixel_values": processor(image, return_tensors="np")["pixel_values"].astype(np.float32)}, None
        return
    if task.startswith("audio"):
        extractor = AutoFeatureExtractor.from_pretrained(folder)
        for sound in synthesize_sounds(2, extractor.sampling_rate, 1):
            values = extractor(sound, sampling_rate=extractor.sampling_rate, return_tensors="np")
            yield {name: np.asarray(values[name]).astype(np.float32) for name in inputs if name in values}, None
        return
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    texts: list[Any] = list(TEXTS)
    if task == "sentence-similarity":
        texts = [Checkpoint(folder).sentence_settings.default_prompt + text for text in texts]
    if outcome.task == "text-classification" and takes_pairs_of(folder):
        texts = list(zip(texts, reversed(texts), strict=True))
    batches = [texts] if tokenizer.padding else [[text] for text in texts]
    for batch in batches:
        encoded = tokenizer.encode_batch(batch)
        feed = {
            "input_ids": [entry.ids for entry in encoded],
            "attention_mask": [entry.attention_mask for entry in encoded],
            "token_type_ids": [entry.type_ids for entry in encoded],
        }
        arrays = {name: np.array(values, np.int64) for name, values in feed.items() if name in inputs}
        arrays |= empty_cache(inputs, len(batch), arrays)
        masks = [np.flatnonzero(entry.attention_mask) for entry in encoded]
        spans = [(int(mask[0]), int(mask[-1]) + 1) for mask in masks]
        yield arrays, spans if task in PER_TOKEN else None


def empty_cache(inputs: dict[str, Any], batch: int, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the empty cache of a decoder's first step, and its positions."""
    cache = {}
    for name, value in inputs.items():
        if name.startswith("past_key_values"):
            shape = [
                batch if axis == 0 else size if isinstance(size, int) else 0 for axis, size in enumerate(value.shape)
            ]
            cache[name] = np.zeros(shape, np.float32)
    if "position_ids" in inputs:
        cache["position_ids"] = np.maximum(np.cumsum(arrays["attention_mask"], axis=1) - 1, 0)
    return cache


def takes_pairs_of(folder: Path) -> bool:
    """Tell whether a classifier judges pairs, as its files say."""
    from onnxproof.tasks.heads import takes_pairs

    return takes_pairs(read_json(folder / "config.json"))


def answers_of_original(folder: Path, task: str) -> list[np.ndarray]:
    """Return what a user of the original gets for the same inputs; raises whatever the libraries raise."""
    import torch
    import transformers

    if task == "sentence-similarity":
        from sentence_transformers import SentenceTransformer

        model = SentenceTransformer(str(folder), device="cpu", local_files_only=True).float()
        model.truncate_dim = None  # applied behind the graph
        return list(model.encode(TEXTS, batch_size=len(TEXTS)))
    if task == "text-classification" and takes_pairs_of(folder):
        from sentence_transformers import CrossEncoder

        model = CrossEncoder(str(folder), device="cpu", local_files_only=True)
        pairs = list(zip(TEXTS, reversed(TEXTS), strict=True))
        return [np.atleast_1d(row) for row in model.predict(pairs, activation_fn=torch.nn.Identity())]
    if task == "text-generation":
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
        network = transformers.AutoModelForCausalLM.from_pretrained(folder, local_files_only=True).float().eval()
        with torch.inference_mode():
            return [
                network(**tokenizer(text, return_tensors="pt", truncation=True)).logits[0].numpy() for text in TEXTS
            ]
    if task == "feature-extraction":
        run = transformers.pipeline(task, model=str(folder), device="cpu", tokenize_kwargs={"truncation": True})
        return [np.array(run(text)[0]) for text in TEXTS]
    if task == "token-classification":
        run = transformers.pipeline(task, model=str(folder), device="cpu", ignore_labels=[])
        return [np.array([token["score"] for token in tokens]) for tokens in run(TEXTS)]
    if task == "text-classification":
        run = transformers.pipeline(task, model=str(folder), device="cpu", top_k=None, function_to_apply="none")
        return [by_label(scores, run.model.config) for scores in run(TEXTS, truncation=True)]
    if task == "image-classification":
        from PIL import Image

        run = transformers.pipeline(task, model=str(folder), device="cpu", top_k=1000, function_to_apply="none")
        return [by_label(run(Image.fromarray(image)), run.model.config) for image in draw_images(2, 1)]
    run = transformers.pipeline(task, model=str(folder), device="cpu", top_k=1000, function_to_apply="none")
    sounds = synthesize_sounds(2, run.feature_extractor.sampling_rate, 1)
    return [by_label(run(sound), run.model.config) for sound in sounds]


def by_label(scores: list[dict[str, Any]], config: Any) -> np.ndarray:
    """Return a pipeline's scores in the order of the classes."""
    found = {entry["label"]: entry["score"] for entry in scores}
    return np.array([found[config.id2label[number]] for number in range(len(config.id2label))])


def difference(expected: list[np.ndarray], actual: list[np.ndarray], task: str) -> float:
    """Return the largest difference over the largest value; infinite where shapes differ."""
    if task == "token-classification":  # a pipeline gives the best label's likelihood, without special tokens
        actual = [np.exp(rows - rows.max(-1, keepdims=True)) for rows in actual]
        actual = [(rows / rows.sum(-1, keepdims=True)).max(-1)[1:-1] for rows in actual]
    worst = 0.0
    for one, other in zip(expected, actual, strict=True):
        if np.shape(one) != np.shape(other) or not np.isfinite(other).all() or not np.isfinite(one).all():
            return float("inf")
        worst = max(worst, float(np.abs(one - other).max() / max(1e-6, float(np.abs(one).max()))))
    return worst
