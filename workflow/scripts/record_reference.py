"""Record what PyTorch answers to the evaluation inputs, once, so that no later step needs torch.

Every text is run alone, without padding: what a model answers to a text must not depend on its neighbours, so
this one answer judges the variants both alone and in padded batches.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxproof.cli import UserError, run_script
from onnxproof.files import describe_files, read_json, staged_folder, versions_of, write_json
from onnxproof.reference import INPUTS_FILE, OUTPUTS_FILE, PER_TOKEN, TEXTS_FILE
from onnxproof.snapshot import remote_code_allowed
from onnxproof.tasks import choose_task
from onnxproof.texts import EVALUATION_TEXTS, read_texts

Array = NDArray[Any]
Forward = Callable[[dict[str, Any]], dict[str, Any]]

#: Longer inputs cost much and show nothing new; models with a shorter limit are cut there.
MAX_TOKENS = 512


def load_sentence_transformer(snapshot: Path) -> tuple[Any, Forward, int]:
    """Load a sentence-transformer; return its tokenizer, its forward pass with pooling, and its limit."""
    from sentence_transformers import SentenceTransformer

    trusted = remote_code_allowed(snapshot)
    model = SentenceTransformer(str(snapshot), device="cpu", local_files_only=True, trust_remote_code=trusted)
    model.eval().float()

    def forward(features: dict[str, Any]) -> dict[str, Any]:
        outputs = model(features)
        return {
            "last_hidden_state": outputs["token_embeddings"],
            "sentence_embedding": outputs["sentence_embedding"],
        }

    return model.tokenizer, forward, model.max_seq_length or MAX_TOKENS


def load_transformer(model: str, snapshot: Path, task: str) -> tuple[Any, Forward, int]:
    """Load a transformers model with the head of its task; return its tokenizer, forward pass and limit.

    Raises:
        UserError: weights of the task's head are missing from the snapshot: transformers would invent them.
    """
    import torch
    from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

    auto_class, output = {
        "text-classification": (AutoModelForSequenceClassification, "logits"),
        "feature-extraction": (AutoModel, "last_hidden_state"),
    }[task]
    local = {"local_files_only": True, "trust_remote_code": remote_code_allowed(snapshot)}
    network, report = auto_class.from_pretrained(snapshot, dtype=torch.float32, output_loading_info=True, **local)
    # A pooler hangs beside the token vectors, not below them, and many encoders are published without one.
    missing = [key for key in report["missing_keys"] if not (output == "last_hidden_state" and "pooler" in key)]
    if missing:
        raise UserError(
            f"{model}: the snapshot holds no weights for {', '.join(sorted(missing)[:4])}: it was not made for "
            f"the task {task}"
        )
    network.eval()
    tokenizer = AutoTokenizer.from_pretrained(snapshot, **local)
    limit = getattr(network.config, "max_position_embeddings", None) or MAX_TOKENS
    if network.config.model_type in ("roberta", "xlm-roberta", "camembert"):
        limit -= network.config.pad_token_id + 1  # their positions start after the padding index

    def forward(features: dict[str, Any]) -> dict[str, Any]:
        return {output: network(**features)[output]}

    return tokenizer, forward, min(limit, tokenizer.model_max_length)


def run_texts(
    tokenizer: Any, forward: Forward, max_tokens: int, texts: list[str]
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Run each text alone; return the inputs (with their ``lengths``) and outputs, concatenated over texts."""
    import torch

    inputs: dict[str, list[Array]] = {}
    outputs: dict[str, list[Array]] = {}
    lengths = []
    for number, text in enumerate(texts, start=1):
        features = tokenizer([text], truncation=True, max_length=max_tokens, padding=False, return_tensors="pt")
        with torch.inference_mode():
            answers = forward(dict(features))
        lengths.append(features["input_ids"].shape[1])
        for name in tokenizer.model_input_names:
            if name in features:
                inputs.setdefault(name, []).append(features[name][0].numpy().astype(np.int64))
        for name, answer in answers.items():
            rows = answer[0] if name in PER_TOKEN else answer
            outputs.setdefault(name, []).append(rows.float().numpy())
        if number % 50 == 0 or number == len(texts):
            print(f"recorded {number} of {len(texts)} texts", flush=True)
    recorded_inputs = {name: np.concatenate(parts) for name, parts in inputs.items()}
    recorded_outputs = {name: np.concatenate(parts) for name, parts in outputs.items()}
    return recorded_inputs | {"lengths": np.array(lengths, dtype=np.int64)}, recorded_outputs


def record(
    model: str,
    snapshot: Path,
    requested_task: str | None,
    texts_file: Path,
    threads: int,
    folder: Path,
    manifest: Path,
) -> None:
    """Run the evaluation texts through PyTorch and write inputs, outputs and their manifest.

    Raises:
        UserError: the texts cannot be read, or the snapshot does not serve the task.
    """
    task = choose_task(model, snapshot, requested_task)
    texts = read_texts(texts_file)

    import torch
    from safetensors.numpy import save_file

    torch.set_num_threads(threads)
    tokenizer, forward, limit = (
        load_sentence_transformer(snapshot)
        if task == "sentence-similarity"
        else load_transformer(model, snapshot, task)
    )
    inputs, outputs = run_texts(tokenizer, forward, min(limit, MAX_TOKENS), texts)
    padding = {"input_ids": tokenizer.pad_token_id or 0, "token_type_ids": tokenizer.pad_token_type_id}
    with staged_folder(folder) as stage:
        write_json(stage / TEXTS_FILE, texts)
        save_file(inputs, stage / INPUTS_FILE)
        save_file(outputs, stage / OUTPUTS_FILE)
        files = describe_files(stage)
    description = {
        "model": model,
        "task": task,
        "reference": "pytorch",
        "inputs": {
            "count": len(texts),
            "sha256": files[INPUTS_FILE]["sha256"],
            "tokens": int(inputs["lengths"].sum()),
            "shortest": int(inputs["lengths"].min()),
            "longest": int(inputs["lengths"].max()),
            "max_tokens": min(limit, MAX_TOKENS),
            "max_tokens_of_model": limit,
        },
        "outputs": {
            name: {"shape": list(values.shape), "dtype": str(values.dtype)} for name, values in outputs.items()
        },
        "padding": {
            "side": tokenizer.padding_side,
            "values": {name: padding.get(name, 0) for name in inputs if name != "lengths"},
        },
        "labels": read_json(snapshot / "config.json").get("id2label"),
        "threads": threads,
        "files": files,
        "versions": versions_of("torch", "transformers", "tokenizers", "sentence-transformers"),
    }
    write_json(manifest, description)


def main(argv: list[str] | None = None) -> None:
    """Parse the command line and record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="the model's name in config.yaml")
    parser.add_argument("--source", type=Path, required=True, help="folder with the downloaded snapshot")
    parser.add_argument("--task", help="task to run; inferred from the snapshot when left out")
    parser.add_argument(
        "--texts",
        type=Path,
        default=EVALUATION_TEXTS,
        help="evaluation texts, .jsonl or .txt (default: bundled)",
    )
    parser.add_argument("--threads", type=int, default=1, help="threads that torch may use")
    parser.add_argument("--output-dir", type=Path, required=True, help="folder to write the reference to")
    parser.add_argument("--manifest", type=Path, required=True, help="JSON file to describe it in")
    args = parser.parse_args(argv)
    record(args.model, args.source, args.task, args.texts, args.threads, args.output_dir, args.manifest)


if __name__ == "__main__":
    run_script(main)
