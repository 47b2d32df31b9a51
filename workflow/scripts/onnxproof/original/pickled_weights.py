"""Turn pickled PyTorch weights into safetensors, so that no later step and no user of the results unpickles them."""

import json
from pathlib import Path
from typing import Any

from onnxproof.checkpoint.layout import pickled_files
from onnxproof.checkpoint.untrusted import shortened
from onnxproof.cli import UserError
from onnxproof.files import Files, describe_files

#: Weights may be stored once under several names (embeddings, encoder, decoder, head), and are written out each time.
MOST_COPIES = 4


def replace_pickles(model: str, folder: Path) -> Files:
    """Replace every ``*.bin`` of a snapshot; return the files that were replaced.

    torch's weights-only unpickler refuses whatever is not a tensor or a plain container of some.

    Raises:
        UserError: a file holds more than tensors, is damaged, or would grow beyond reason.
    """
    described = describe_files(folder)
    replaced = {name: described[name] for name in pickled_files(described)}
    for name in replaced:
        _replace_weights(model, folder / name, name)
        (folder / name).unlink()
    for index in sorted(folder.rglob("pytorch_model.bin.index.json")):
        content = json.loads(index.read_text(encoding="utf-8"))
        content["weight_map"] = {key: _new_name(part) for key, part in content["weight_map"].items()}
        index.with_name("model.safetensors.index.json").write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
        index.unlink()
    return replaced


def _new_name(name: str) -> str:
    return name.replace("pytorch_model", "model").removesuffix(".bin") + ".safetensors"


def _replace_weights(model: str, path: Path, name: str) -> None:
    import pickle

    import torch
    from safetensors.torch import save_file

    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=_is_archive(path))
    except pickle.UnpicklingError as error:
        reason = str(error).partition("WeightsUnpickler error: ")[2].partition("\n")[0] or "not readable weights-only"
        raise UserError(f"{model}: {name} holds more than tensors and is not loaded: {shortened(reason)}") from None
    except Exception as error:  # a malformed pickle is a malformed program: any error may come of it
        raise UserError(f"{model}: {name} cannot be read as PyTorch's weights: {type(error).__name__}") from None
    if not isinstance(content, dict) or not content or not all(map(_is_tensor_of_a_name, content.items())):
        raise UserError(f"{model}: {name} must hold a mapping of names to tensors, and nothing else")
    size = path.stat().st_size
    wanted = [tensor.numel() * tensor.element_size() for tensor in content.values()]
    if max(wanted) > size or sum(wanted) > MOST_COPIES * size:
        raise UserError(f"{model}: {name} has {size} bytes and unpacks to {sum(wanted)}: no weights need that")
    save_file(
        {key: tensor.detach().clone().contiguous() for key, tensor in content.items()},
        path.with_name(_new_name(path.name)),
        metadata={"format": "pt"},
    )


def _is_archive(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(2) == b"PK"


def _is_tensor_of_a_name(item: tuple[Any, Any]) -> bool:
    import torch

    key, value = item
    return isinstance(key, str) and isinstance(value, torch.Tensor) and value.layout == torch.strided
