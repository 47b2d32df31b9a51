"""Model folders with one thing wrong: what people upload, copy together, and edit by hand.

``mutate`` changes a folder in place, at random but the same for the same seed, and says what it did.
"""

import json
import random
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Words = tuple[str, ...]
DOCUMENTS = ("README.md",)


def json_files(folder: Path) -> list[Path]:
    """Return a folder's JSON files, the large vocabulary among them, in order."""
    return sorted(path for path in folder.rglob("*.json") if path.name != "model.safetensors.index.json")


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every key inside a JSON value, but for the entries of a vocabulary."""
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    if len(value) > 100 if isinstance(value, dict | list) else False:
        entries = list(entries)[:3]
    for key, part in entries:
        yield (*path, key)
        yield from places(part, (*path, key))


def changed(value: Any, chance: random.Random) -> Any:
    """Return another value of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return chance.choice([value + 1, value - 1, 2 * value, 0, -1, 7])
    if isinstance(value, float):
        return chance.choice([value * 10, 0.0, -value, 1e30])
    if isinstance(value, str):
        return chance.choice(["", value + "x", value.upper(), "no such thing", "[SEP]", "relu"])
    if isinstance(value, list):
        return chance.choice([[], value[:-1], [*value, *value[-1:]]])
    if isinstance(value, dict):
        return chance.choice([{}, dict(list(value.items())[:-1])])
    return chance.choice([1, "x", False, []])


def retyped(value: Any, chance: random.Random) -> Any:
    """Return a value of another type, the kind of slip that an editor or another program makes."""
    if isinstance(value, bool):
        return chance.choice([str(value).lower(), None, 3])
    if isinstance(value, int | float):
        return chance.choice([str(value), None, float(value) + 0.5, [value], True])
    if isinstance(value, str):
        return chance.choice([None, 5, [value], {"content": value}, True])
    return chance.choice([None, "x", 5, True])


def edit_json(folder: Path, chance: random.Random) -> str:
    """Remove, rename, change or retype one key of one JSON file."""
    path = chance.choice(json_files(folder))
    content = json.loads(path.read_text())
    *parents, key = chance.choice(sorted(places(content), key=str) or [("missing",)])
    inside = content
    for parent in parents:
        inside = inside[parent]
    act = chance.choice(("remove", "rename", "change", "change", "retype", "retype"))
    where = f"{path.relative_to(folder)}: {'.'.join(map(str, (*parents, key)))}"
    if not isinstance(inside, dict | list) or (isinstance(inside, dict) and key not in inside):
        return f"{where}: nothing"
    before = inside[key]
    if act == "remove":
        inside.pop(key)
    elif act == "rename" and isinstance(inside, dict):
        inside[chance.choice([f"{key}_", f"_{key}", str(key)[:-1] or "x"])] = inside.pop(key)
    elif act == "change":
        inside[key] = changed(before, chance)
    else:
        inside[key] = retyped(before, chance)
    path.write_text(json.dumps(content))
    after = inside.get(key, "gone") if isinstance(inside, dict) else "…"
    return f"{where}: {act} {str(before)[:40]!r} -> {str(after)[:40]!r}"


def drop_file(folder: Path, chance: random.Random) -> str:
    """Remove one file."""
    path = chance.choice(sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in DOCUMENTS))
    path.unlink()
    return f"without {path.relative_to(folder)}"


def empty_file(folder: Path, chance: random.Random) -> str:
    """Empty one file, as an interrupted copy does."""
    path = chance.choice(sorted(path for path in folder.rglob("*") if path.is_file()))
    path.write_bytes(b"")
    return f"{path.relative_to(folder)} is empty"


def read_tensors(path: Path) -> tuple[dict[str, Any], bytes]:
    """Return header and values of a safetensors file."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def write_tensors(path: Path, header: dict[str, Any], values: bytes) -> None:
    """Write a safetensors file; tensors whose offsets leave gaps are moved together."""
    packed, parts, end = {}, [], 0
    for name, entry in header.items():
        if name == "__metadata__":
            packed[name] = entry
            continue
        begin, after = entry["data_offsets"]
        parts.append(values[begin:after])
        packed[name] = entry | {"data_offsets": [end, end + after - begin]}
        end += after - begin
    head = json.dumps(packed).encode()
    path.write_bytes(struct.pack("<Q", len(head)) + head + b"".join(parts))


def edit_weights(folder: Path, chance: random.Random) -> str:
    """Truncate the weights, or rename, drop, reshape, add or prefix some of them."""
    path = chance.choice(sorted(folder.rglob("*.safetensors")))
    header, values = read_tensors(path)
    names = [name for name in header if name != "__metadata__"]
    name = chance.choice(names)
    act = chance.choice(("truncate", "drop", "drop", "rename", "reshape", "add", "prefix", "layer"))
    if act == "truncate":
        path.write_bytes(path.read_bytes()[: -chance.choice([1, 100])])
    elif act == "drop":
        del header[name]
    elif act == "rename":
        header[name + "_x"] = header.pop(name)
    elif act == "reshape" and len(header[name]["shape"]) == 2:
        header[name]["shape"] = header[name]["shape"][::-1]
    elif act == "add":
        header[name.rpartition(".")[0] + chance.choice([".lora_A.weight", ".extra", ".weight_scale"])] = header[name]
    elif act == "prefix":
        prefix = chance.choice(["_orig_mod.", "module.", "model.", "base_model.model."])
        header = {prefix + name if name in names else name: entry for name, entry in header.items()}
    elif act == "layer":
        layered = [name for name in names if ".1." in name]
        header |= {name.replace(".1.", ".2."): header[name] for name in layered}
    if act != "truncate":
        write_tensors(path, header, values)
    return f"{path.relative_to(folder)}: {act} {name}"


ADDED: dict[str, Any] = {
    "adapter_config.json": {"peft_type": "LORA", "base_model_name_or_path": "x"},
    "quantize_config.json": {"bits": 4},
    "special_tokens_map.json": {"pad_token": "[SEP]"},
    "generation_config.json": {"max_new_tokens": "many"},
    "config_sentence_transformers.json": {"default_prompt_name": "none such", "prompts": {}},
    "sentence_bert_config.json": {"max_seq_length": 16, "do_lower_case": True},
    "added_tokens.json": {"<new>": 9999},
    "preprocessor_config.json": {"image_mean": [0.5], "size": -1},
    "modules.json": [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.StaticEmbedding"}],
    "processor_config.json": {},
}


def add_file(folder: Path, chance: random.Random) -> str:
    """Add a file of another kind of model, or write over the one that is there."""
    name = chance.choice(sorted(ADDED))
    (folder / name).write_text(json.dumps(ADDED[name]))
    return f"with {name}: {ADDED[name]}"


def swap_file(folder: Path, chance: random.Random, other: Path) -> str:
    """Take one file from another model."""
    names = sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and (other / path.relative_to(folder)).is_file() and path.name not in DOCUMENTS
    )
    if not names:
        return "nothing to swap"
    name = chance.choice(names)
    (folder / name).write_bytes((other / name).read_bytes())
    return f"{name} of {other.name}"


KINDS: tuple[Callable[[Path, random.Random], str], ...] = (
    *(edit_json,) * 6,
    *(edit_weights,) * 2,
    drop_file,
    empty_file,
    add_file,
)


def mutate(folder: Path, seed: str, others: list[Path]) -> str:
    """Change one thing in a folder, in place; return what."""
    chance = random.Random(seed)
    kind = chance.randrange(len(KINDS) + 1)
    return swap_file(folder, chance, chance.choice(others)) if kind == len(KINDS) else KINDS[kind](folder, chance)
