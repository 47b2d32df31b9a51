"""Models whose weights stay in files: read tensor by tensor, written again as one file, or with a file of weights.

One protobuf holds at most 2 GB, and a large model must not be in memory several times over. So the weights of a model
above ``BY_REFERENCE_BYTES`` are left where they are: its graph only refers to them, as ONNX's external data does. The
folder that the references start from is noted in the model's metadata, so that copies of the graph are whole models.
What a pass adds is written to a scratch folder and referred to as well.
"""

import hashlib
import math
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import external_data_helper, helper, numpy_helper

from onnxproof.files import CHUNK_BYTES
from onnxproof.graph.folder import all_tensors, check_external_data
from onnxproof.graph.single_file import read_apart, read_without_weights, write_whole

#: From this size on, in bytes of weights, a model is handled by reference.
BY_REFERENCE_BYTES = 256 << 20
#: The same for a graph of which several forms are held at once: when it is rewritten, or a recipe searched for. The
#: bytes of the result are the same either way.
WHOLE_BELOW = 32 << 20
#: Tensors below this many bytes stay in the graph: shapes, biases, what passes look at most.
SMALLEST_OUTSIDE = 1 << 20
#: A model of fewer bytes is written as one file. One protobuf holds 2 GiB; a little room is left.
SINGLE_FILE_BYTES = (2 << 30) - (16 << 20)
#: The same for files that onnxruntime runs on a CPU, and whose weights it reorders. It maps a file of weights, and lets
#: go of each weight that it has reordered; one file is first read whole, and the C library keeps part of that memory.
MAPPED_BYTES = WHOLE_BELOW
#: Where each tensor starts in a file of weights: at a page, so that it can be mapped into memory by itself.
PAGE = 4096

_FOLDER, _SCRATCH = "onnxproof.weights_folder", "onnxproof.scratch"


def load_model(path: Path, scratch: Path, whole_below: int | None = None) -> onnx.ModelProto:
    """Load a model: whole, or by reference where it is large.

    Args:
        path: the graph; weights in files beside it are found.
        scratch: an existing folder that outlives the model, for weights that are added to it.
        whole_below: with fewer bytes of weights a model is loaded whole; None for ``BY_REFERENCE_BYTES``.

    Raises:
        UserError: weights are to be read from anywhere but plain files of the graph's own folder.
    """
    model, contents = read_apart(path, SMALLEST_OUTSIDE)
    check_external_data(model, path.parent)
    constants = model.graph.initializer
    inside = [
        (constants[place], content)
        for place, content in contents.items()
        if constants[place].data_location != onnx.TensorProto.EXTERNAL
    ]
    size = path.stat().st_size + sum(_place(tensor)[2] for tensor in _outside(model))
    if size < (BY_REFERENCE_BYTES if whole_below is None else whole_below):
        for tensor, content in inside:
            tensor.raw_data = bytes(content)
        external_data_helper.load_external_data_for_model(model, str(path.parent))
        return model
    folder = Path(os.path.commonpath([path.parent.resolve(), scratch.resolve()]))
    kept = {tensor.name for tensor in model.graph.initializer}
    for tensor in all_tensors(model.graph):
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        location, offset, length = _place(tensor)
        if tensor.name in kept and length >= SMALLEST_OUTSIDE:
            _refer(tensor, (path.parent.resolve() / location).relative_to(folder).as_posix(), offset, length)
        else:
            external_data_helper.load_external_data_for_tensor(tensor, str(path.parent))
    helper.set_model_props(
        model,
        {entry.key: entry.value for entry in model.metadata_props}
        | {_FOLDER: str(folder), _SCRATCH: str(scratch.resolve())},
    )
    for tensor, content in inside:
        _write_outside(model, tensor, content)
    return move_outside(model)


def move_outside(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model by reference without the large constants that it holds itself: they are written to its scratch.

    A model that is not by reference is returned as it is.
    """
    if weights_folder(model) is None:
        return model
    for tensor in model.graph.initializer:
        if tensor.HasField("raw_data") and len(tensor.raw_data) >= SMALLEST_OUTSIDE:
            _write_outside(model, tensor, tensor.raw_data)
            tensor.ClearField("raw_data")
    # What a message has freed it keeps until it is freed itself.
    smaller = onnx.ModelProto()
    smaller.CopyFrom(model)
    return smaller


def weights_folder(model: onnx.ModelProto) -> Path | None:
    """Return the folder that a model's references start from; None where it holds its weights itself."""
    folder = _property(model, _FOLDER)
    return None if folder is None else Path(folder)


def scratch_folder(model: onnx.ModelProto) -> Path | None:
    """Return the folder for weights that are added to a model by reference; None where it holds its weights itself."""
    scratch = _property(model, _SCRATCH)
    return None if scratch is None else Path(scratch)


def session_entries(model: onnx.ModelProto) -> dict[str, str]:
    """Return the session configuration with which onnxruntime, given the serialized graph, finds the weights."""
    folder = weights_folder(model)
    return {} if folder is None else {"session.model_external_initializers_file_folder_path": str(folder)}


def weight_bytes(model: onnx.ModelProto) -> int:
    """Return the bytes of a model, those that it refers to included."""
    return int(model.ByteSize()) + sum(_place(tensor)[2] for tensor in _outside(model))


def digest_of_model(model: onnx.ModelProto) -> str:
    """Return a sha256 of a model's graph and constants, in hex.

    Of the weights that a model by reference was loaded with, only their places count: they are to be the same files.
    """
    if weights_folder(model) is None:
        return hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest()
    plain = _without_folders(model)
    for tensor in _outside(plain):
        location, offset, length = _place(tensor)
        _refer(tensor, Path(location).name, offset, length)
    return hashlib.sha256(plain.SerializeToString(deterministic=True)).hexdigest()


def read_tensor(model: onnx.ModelProto, tensor: onnx.TensorProto) -> NDArray[Any]:
    """Return a constant's values; those in a file are mapped into memory, read-only, as long as the array lives."""
    if tensor.data_location != onnx.TensorProto.EXTERNAL:
        return np.asarray(numpy_helper.to_array(tensor))
    folder = weights_folder(model)
    assert folder is not None, "only load_model makes references"
    location, offset, _ = _place(tensor)
    dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
    return np.asarray(np.memmap(folder / location, dtype, "r", offset, tuple(tensor.dims)))


def make_tensor(model: onnx.ModelProto, name: str, values: NDArray[Any]) -> onnx.TensorProto:
    """Return a constant for ``model``, which may keep it outside."""
    values = np.asarray(values, order="C")
    if weights_folder(model) is None or values.nbytes < SMALLEST_OUTSIDE:
        return numpy_helper.from_array(values, name)
    tensor = onnx.TensorProto(name=name, data_type=helper.np_dtype_to_tensor_dtype(values.dtype), dims=values.shape)
    _write_outside(model, tensor, values.data)
    return tensor


def save_model(model: onnx.ModelProto, path: Path, single_below: int | None = None) -> None:
    """Write a model: as one file, or with its large weights in ``<name>_data`` beside it.

    Args:
        model: the model. One that is not by reference is always written as one file.
        path: the graph to write.
        single_below: with fewer bytes it is one file; None for ``SINGLE_FILE_BYTES``.
    """
    folder = weights_folder(model)
    if folder is None:
        onnx.save(model, path)
        return
    whole = _without_folders(model)
    if weight_bytes(model) < (SINGLE_FILE_BYTES if single_below is None else single_below):
        write_whole(whole, path, partial(_weight, folder))
    else:
        _gather(whole, folder, path.with_name(f"{path.name}_data"))
        onnx.save(whole, path)


def _without_folders(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy of a model by reference that does not say where on this machine its weights are."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    kept = [entry for entry in copy.metadata_props if entry.key not in (_FOLDER, _SCRATCH)]
    del copy.metadata_props[:]
    copy.metadata_props.extend(kept)
    return copy


def weight_files(model: onnx.ModelProto) -> set[str]:
    """Return the files that a graph's weights are read from, as the graph names them."""
    return {_place(tensor)[0] for tensor in _outside(model)}


def rename_weights(path: Path, old: str, new: str) -> None:
    """Have a graph read its weights from the file ``new`` where it reads them from ``old``."""
    if old in weight_files(read_without_weights(path)):
        model = onnx.load(path, load_external_data=False)
        for tensor in _outside(model):
            location, offset, length = _place(tensor)
            _refer(tensor, new if location == old else location, offset, length)
        onnx.save(model, path)


def gather_weights(path: Path) -> None:
    """Join the files that a graph's weights are in, where there are several, into ``<name>_data`` beside it."""
    model = read_without_weights(path)
    check_external_data(model, path.parent)
    parts = weight_files(model)
    if len(parts) > 1:
        model = onnx.load(path, load_external_data=False)
        _gather(model, path.parent, path.with_name(f"{path.name}_data"))
        onnx.save(model, path)
        for part in parts:
            (path.parent / part).unlink()


def join_weights(path: Path) -> None:
    """Write a graph and the file that its weights are in as one file, where one can hold them."""
    parts = weight_files(read_without_weights(path))
    if not parts:
        return
    model = onnx.load(path, load_external_data=False)
    if weight_bytes(model) >= SINGLE_FILE_BYTES:
        return
    places = {tensor.name for tensor in model.graph.initializer}
    for tensor in _outside(model):
        if tensor.name not in places:  # a constant of a branch or a loop
            external_data_helper.load_external_data_for_tensor(tensor, str(path.parent))
            tensor.ClearField("data_location")  # as in a file that never had another
    whole = path.with_name(f"{path.name}_whole")
    write_whole(model, whole, partial(_weight, path.parent))
    whole.replace(path)
    for part in parts:
        (path.parent / part).unlink()


def _gather(model: onnx.ModelProto, folder: Path, data: Path) -> None:
    """Copy all weights into one file and have the references name it."""
    with data.open("wb") as target:
        for tensor in _outside(model):
            location, offset, length = _place(tensor)
            start = math.ceil(target.tell() / PAGE) * PAGE
            target.seek(start)
            with (folder / location).open("rb") as source:
                source.seek(offset)
                _copy(source, target, length)
            _refer(tensor, data.name, start, length)


def _copy(source: Any, target: Any, length: int) -> None:
    for chunk in _chunks(source, length):
        target.write(chunk)


def _chunks(source: Any, length: int) -> Iterator[bytes]:
    while length:
        chunk = source.read(min(length, CHUNK_BYTES))
        if not chunk:
            raise EOFError("the file of weights is shorter than the graph says")
        yield chunk
        length -= len(chunk)


def _weight(folder: Path, tensor: onnx.TensorProto) -> tuple[int, Iterator[bytes]]:
    """Return the length of a weight that is outside, and its content in pieces."""
    location, offset, length = _place(tensor)

    def pieces() -> Iterator[bytes]:
        with (folder / location).open("rb") as source:
            source.seek(offset)
            yield from _chunks(source, length)

    return length, pieces()


def _write_outside(model: onnx.ModelProto, tensor: onnx.TensorProto, content: Any) -> None:
    folder, scratch = weights_folder(model), _property(model, _SCRATCH)
    assert folder is not None
    assert scratch is not None
    # Named after its content, so that equal weights are stored once and the model has the same digest each time.
    path = Path(scratch, hashlib.sha256(content).hexdigest())
    if not path.exists():
        path.write_bytes(content)
    _refer(tensor, path.relative_to(folder).as_posix(), 0, path.stat().st_size)


def _refer(tensor: onnx.TensorProto, location: str, offset: int, length: int) -> None:
    del tensor.external_data[:]
    for key, value in (("location", location), ("offset", offset), ("length", length)):
        tensor.external_data.add(key=key, value=str(value))
    tensor.data_location = onnx.TensorProto.EXTERNAL


def _place(tensor: onnx.TensorProto) -> tuple[str, int, int]:
    """Return where a tensor's values are: file, offset and length in bytes."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    size = math.prod(tensor.dims) * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    return entries["location"], int(entries.get("offset", 0)), int(entries.get("length", size))


def _outside(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    return (tensor for tensor in all_tensors(model.graph) if tensor.data_location == onnx.TensorProto.EXTERNAL)


def _property(model: onnx.ModelProto, key: str) -> str | None:
    return next((str(entry.value) for entry in model.metadata_props if entry.key == key), None)
