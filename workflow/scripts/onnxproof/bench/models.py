"""The models of the comparison that are made on the spot: the shape of a known model, with random weights.

Speed depends on the shape alone. What int8 costs a model with random weights says little of a trained one.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

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
    for name in TOKENIZER_FILES:
        if (tokenizer / name).is_file():
            shutil.copyfile(tokenizer / name, folder / name)


def save_vit(folder: Path, tokenizer: Path) -> None:
    """Save an image classifier of the shape of ViT-base with patches of 16 pixels: 86 million parameters."""
    import torch
    import transformers

    classes: Any = transformers
    torch.manual_seed(0)
    classes.ViTForImageClassification(classes.ViTConfig(num_labels=1000)).save_pretrained(folder)
    classes.ViTImageProcessor().save_pretrained(folder)


#: By name: how it is saved, and its task.
LOCAL_MODELS: dict[str, tuple[Callable[[Path, Path], None], str]] = {
    "bert-base-multilingual-shape": (save_multilingual_bert, "text-classification"),
    "vit-base-shape": (save_vit, "image-classification"),
}
