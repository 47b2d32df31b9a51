"""Answer with Optimum or sentence-transformers: python optimum_answers.py CLIENT ANSWERS.npz

Runs where optimum-onnx is installed: an environment of its own, because it needs transformers 4.57. Standard input is
JSON: the fields of ``compare_clients.Release``, images as paths of .npy files. Written is one array an input.
"""

import json
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np

#: Task → the class of Optimum that gives its answers.
CLASSES = {
    "text-classification": "ORTModelForSequenceClassification",
    "image-classification": "ORTModelForImageClassification",
    "sentence-similarity": "ORTModelForCustomTasks",
    "feature-extraction": "ORTModelForFeatureExtraction",
    "text-generation": "ORTModelForCausalLM",
}
#: Task → the task of a transformers pipeline where that is another, which takes another class of Optimum too.
PIPELINES = {"sentence-similarity": "feature-extraction"}
#: What is compared → the output that has it.
OUTPUTS = {"embeddings": "sentence_embedding", "token vectors": "last_hidden_state"}


def load_model(release: SimpleNamespace, task: str) -> Any:
    """Return Optimum's model, on one thread."""
    import onnxruntime
    import optimum.onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return getattr(optimum.onnxruntime, CLASSES[task]).from_pretrained(
        release.folder, subfolder="onnx", file_name=release.file.removeprefix("onnx/"), session_options=options
    )


def load_tokenizer(release: SimpleNamespace) -> Any:
    """Return transformers' tokenizer; a prompt is cut before the model's limit, to leave room for new tokens."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(release.folder)
    tokenizer.model_max_length = release.max_tokens
    return tokenizer


def load_image_processor(release: SimpleNamespace) -> Any:
    """Return the image processor of a release, the slow one on Pillow."""
    from transformers import AutoImageProcessor

    return AutoImageProcessor.from_pretrained(release.folder, use_fast=False)  # the fast ones need torchvision


def ask_optimum(release: SimpleNamespace) -> list[np.ndarray]:
    """Answer with Optimum's model class for the task; the one for embeddings is the class that keeps every output."""
    import torch

    model = load_model(release, release.task)
    if release.images:
        processor = load_image_processor(release)
        features = [processor(image, return_tensors="np") for image in release.images]
    else:
        tokenizer = load_tokenizer(release)
        tensors = "pt" if release.task == "text-generation" else "np"
        features = [tokenizer(text, truncation=True, return_tensors=tensors) for text in release.texts]
    if release.compared == "generated tokens":
        made = [model.generate(**values, max_new_tokens=release.new_tokens, do_sample=False) for values in features]
        return [tokens[0, -release.new_tokens :].numpy() for tokens in made]
    outputs = [np.asarray(model(**values)[OUTPUTS.get(release.compared, "logits")])[0] for values in features]
    if release.compared in OUTPUTS:
        return outputs
    logits = [output[-1] if release.compared == "next-token probabilities" else output for output in outputs]
    return [torch.from_numpy(values).double().softmax(dim=-1).numpy() for values in logits]


def ask_optimum_pipeline(release: SimpleNamespace) -> list[np.ndarray]:
    """Answer with a transformers pipeline on Optimum's model; for embedders that gives token vectors."""
    from PIL import Image
    from transformers import pipeline

    task = PIPELINES.get(release.task, release.task)
    if release.images:
        part: dict[str, Any] = {"image_processor": load_image_processor(release)}
    else:
        part = {"tokenizer": load_tokenizer(release)}
    pipe = pipeline(task, model=load_model(release, task), **part)
    if release.compared == "generated tokens":
        options = {"max_new_tokens": release.new_tokens, "do_sample": False, "return_tensors": True}
        made = [pipe(text, truncation=True, add_special_tokens=True, **options)[0] for text in release.texts]
        return [np.array(answer["generated_token_ids"][-release.new_tokens :]) for answer in made]
    if release.images:
        images = [Image.fromarray(image) for image in release.images]
        answers = pipe(images, top_k=len(release.labels), function_to_apply="softmax")
    elif release.compared == "probabilities":
        answers = pipe(release.texts, top_k=None, truncation=True, function_to_apply="softmax")
    else:
        return [np.array(pipe(text, truncation=True)[0]) for text in release.texts]
    scores = [{entry["label"]: entry["score"] for entry in answer} for answer in answers]
    return [np.array([score[label] for label in release.labels]) for score in scores]


def ask_sentence_transformers(release: SimpleNamespace) -> list[np.ndarray]:
    """Answer with sentence-transformers' ONNX backend."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(
        release.folder, backend="onnx", model_kwargs={"file_name": release.file}, local_files_only=True
    )
    return [model.encode([text])[0] for text in release.texts]


CLIENTS = {
    "optimum": ask_optimum,
    "optimum-pipeline": ask_optimum_pipeline,
    "sentence-transformers": ask_sentence_transformers,
}

if __name__ == "__main__":
    client, output = sys.argv[1:]
    asked = SimpleNamespace(**json.load(sys.stdin))
    asked.images = [np.load(path) for path in asked.images]
    np.savez(output, *CLIENTS[client](asked))
