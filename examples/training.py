"""What the training scripts of the example models share: batches, options, and the folder they write."""

import argparse
import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from onnxproof.cli import UserError

if TYPE_CHECKING:
    import torch


def batches_of_like_length(token_ids: Sequence[list[int]], order: random.Random, size: int) -> list[list[int]]:
    """Return lists of at most ``size`` indices, shuffled, that group texts of about one length: little padding."""
    indices = list(range(len(token_ids)))
    order.shuffle(indices)
    chunks = [indices[at : at + 32 * size] for at in range(0, len(indices), 32 * size)]
    batches = []
    for chunk in chunks:
        chunk.sort(key=lambda index: len(token_ids[index]))
        batches += [chunk[at : at + size] for at in range(0, len(chunk), size)]
    order.shuffle(batches)
    return batches


def padded(token_ids: Sequence[list[int]], padding: int) -> dict[str, "torch.Tensor"]:
    """Return ``input_ids`` and ``attention_mask``, int64, both (texts, longest text)."""
    import torch

    longest = max(len(ids) for ids in token_ids)
    return {
        "input_ids": torch.tensor([ids + [padding] * (longest - len(ids)) for ids in token_ids]),
        "attention_mask": torch.tensor([[1] * len(ids) + [0] * (longest - len(ids)) for ids in token_ids]),
    }


def repeatable(seed: int) -> None:
    """Seed PyTorch and let it use only algorithms that give the same result each time."""
    import torch

    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # nothing here reads memory it has not written


def check_output_folder(folder: Path, own_files: Iterable[str]) -> None:
    """Refuse to replace a folder that holds anything but an earlier result.

    Raises:
        UserError: ``folder`` is a file, or holds files that the script does not write.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--output-dir {folder}: not a folder")
    foreign = sorted({path.name for path in folder.glob("*")} - set(own_files))
    if foreign:
        raise UserError(
            f"--output-dir {folder}: holds '{foreign[0]}', which is not of this model; "
            "name a new folder, an empty one, or one that this script wrote"
        )


def training_parser(
    description: str, folder: Path, heldout: Path, texts: str, sizes: dict[str, int]
) -> argparse.ArgumentParser:
    """Return a parser of the options that the training scripts share.

    Args:
        description: of the script.
        folder: where the model is written.
        heldout: the file of the texts that are not trained on.
        texts: what the texts are, such as "reviews".
        sizes: the defaults of ``epochs``, ``train_size`` and ``heldout_size``.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--output-dir", type=Path, default=folder, help="folder of the model [%(default)s]")
    parser.add_argument("--heldout", type=Path, default=heldout, help=f"file of the held-out {texts} [%(default)s]")
    parser.add_argument("--seed", type=int, default=7, help="seed of texts, weights and order [%(default)s]")
    helps = {
        "epochs": f"passes over the {texts}",
        "train_size": f"training {texts}",
        "heldout_size": f"held-out {texts}",
    }
    for name, words in helps.items():
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, type=positive, default=sizes[name], help=f"{words} [%(default)s]")
    parser.add_argument("--threads", type=positive, default=1, help="CPU threads of torch [%(default)s]")
    return parser


def positive(text: str) -> int:
    """Parse a whole number of at least 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {number}")
    return number
