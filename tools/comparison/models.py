"""The models of the comparison that are made on the spot: the shape of a known model, with random weights.

Speed depends on the shape alone. What int8 costs a model with random weights says little of a trained one. The models
for fixed scales have outlier channels like a trained transformer's, because those are what fixed scales lose most by.
"""

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from comparison.contenders import BASELINE, make_once
from export import export
from onnxproof.cli import UserError
from onnxproof.files import read_json, write_json
from onnxproof.graph.files import MODEL_FILE

#: In the models with outliers, so many channels behind each normalization and inside each feed-forward block are so
#: many times as large as the others. Trained ones have a handful of each, 10 to 100 times as large.
OUTLIERS, TIMES_AS_LARGE = 4, 20.0
#: Files of a fast tokenizer, which a text model without one of its own borrows.
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")


def save_multilingual_bert(folder: Path, tokenizer: Path) -> None:
    """Save a five-class classifier of the shape of multilingual BERT-base: 167 million parameters.

    Its vocabulary of 105,879 is larger than that of the borrowed tokenizer, which lies in the folder ``tokenizer``.
    """
    import torch
    import transformers

    classes: Any = transformers
    torch.manual_seed(0)
    classes.BertForSequenceClassification(classes.BertConfig(vocab_size=105_879, num_labels=5)).save_pretrained(folder)
    borrow_tokenizer(tokenizer, folder)


def borrow_tokenizer(tokenizer: Path, folder: Path) -> None:
    """Copy the files of a fast tokenizer from the folder ``tokenizer``."""
    for name in TOKENIZER_FILES:
        if (tokenizer / name).is_file():
            shutil.copyfile(tokenizer / name, folder / name)


def plant_outliers(model: Any) -> None:
    """Make a few channels of a transformer much larger than the others, in place; the same ones in every layer."""
    import torch

    config = model.config
    generator = torch.Generator().manual_seed(0)
    channels = torch.randperm(config.hidden_size, generator=generator)[:OUTLIERS]
    inner = torch.randperm(config.intermediate_size, generator=generator)[:OUTLIERS]
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.LayerNorm):
                module.weight[channels] *= TIMES_AS_LARGE
            elif isinstance(module, torch.nn.Linear) and module.out_features == config.intermediate_size:
                module.weight[inner] *= TIMES_AS_LARGE


def save_bert_with_outliers(folder: Path, tokenizer: Path) -> None:
    """Save a classifier of the shape of BERT-base with outliers: 110 million parameters.

    It has 1,000 classes, so that cosines compare many values.
    """
    import torch
    import transformers

    classes: Any = transformers
    torch.manual_seed(0)
    model = classes.BertForSequenceClassification(classes.BertConfig(num_labels=1000))
    plant_outliers(model)
    model.save_pretrained(folder)
    borrow_tokenizer(tokenizer, folder)


def save_vit_with_outliers(folder: Path, tokenizer: Path) -> None:
    """Save an image classifier of the shape of ViT-base with outliers: 86 million parameters."""
    import torch
    import transformers

    classes: Any = transformers
    torch.manual_seed(0)
    model = classes.ViTForImageClassification(classes.ViTConfig(num_labels=1000))
    plant_outliers(model)
    model.save_pretrained(folder)
    classes.ViTImageProcessor().save_pretrained(folder)


def save_vit(folder: Path, tokenizer: Path) -> None:
    """Save an image classifier of the shape of ViT-base with patches of 16 pixels: 86 million parameters."""
    import torch
    import transformers

    classes: Any = transformers
    torch.manual_seed(0)
    classes.ViTForImageClassification(classes.ViTConfig(num_labels=1000)).save_pretrained(folder)
    classes.ViTImageProcessor().save_pretrained(folder)


def save_grown(snapshot: Path, folder: Path, layers: int, hidden: int) -> None:
    """Save a model like a snapshot of a BERT, an embedder or not, with more layers and channels."""
    import torch
    import transformers

    classes: Any = transformers
    shutil.copytree(snapshot, folder, ignore=shutil.ignore_patterns("*.safetensors", "*.bin"))
    config = classes.AutoConfig.from_pretrained(snapshot)
    config.update({"num_hidden_layers": layers, "hidden_size": hidden, "intermediate_size": 4 * hidden})
    config.num_attention_heads = hidden // 64
    torch.manual_seed(0)
    getattr(classes, config.architectures[0])(config).save_pretrained(folder)
    for pooling in folder.glob("*_Pooling/config.json"):
        write_json(pooling, read_json(pooling) | {"word_embedding_dimension": hidden})


#: By name: how it is saved, and its task.
LOCAL_MODELS: dict[str, tuple[Callable[[Path, Path], None], str]] = {
    "bert-base-multilingual-shape": (save_multilingual_bert, "text-classification"),
    "vit-base-shape": (save_vit, "image-classification"),
}
#: The same for fixed scales.
OUTLIER_MODELS: dict[str, tuple[Callable[[Path, Path], None], str]] = {
    "bert-base-shape-with-outliers": (save_bert_with_outliers, "text-classification"),
    "vit-base-shape-with-outliers": (save_vit_with_outliers, "image-classification"),
}


def finished_model(model: str, results: Path, variants: Iterable[str]) -> tuple[dict[str, Path], str]:
    """Return the folders of ``source`` and of these variants of a finished run, fp32 among them, and the task.

    Raises:
        UserError: the run lacks one.
    """
    folders = {variant: results / model / "onnx" / variant for variant in variants}
    for path in folders.values():
        if not (path / MODEL_FILE).is_file():
            raise UserError(f"{path}: no {MODEL_FILE}; make it with: snakemake --cores all {path}.json")
    task: str = read_json(results / model / "onnx" / f"{BASELINE}.json")["task"]
    return {"source": results / model / "source", **folders}, task


def local_model(model: str, folder: Path, tokenizer: Path) -> tuple[dict[str, Path], str]:
    """Return the folders of ``source`` and of fp32 of a model made on the spot, and its task; made where missing."""
    save, task = (LOCAL_MODELS | OUTLIER_MODELS)[model]
    source = make_once(folder / "source", lambda place: save(place, tokenizer))
    fp32 = folder / BASELINE
    if not fp32.is_dir():
        export(model, source, task, fp32, folder / "fp32.json")
    return {"source": source, BASELINE: fp32}, task
