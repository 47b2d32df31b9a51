"""A graph with its weights in one file, written and read with one weight in memory at a time, or none.

protobuf has all weights of such a file in memory twice while it writes or reads them. Here the few messages that hold
them are taken apart and joined as protobuf's encoding has them (https://protobuf.dev/programming-guides/encoding/): a
message is its fields, each a number and a kind, and, of what is not a plain number, a length. Fields are written in the
order of their numbers.
"""

import mmap
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import onnx

#: Kinds of fields: plain numbers, numbers of 8 bytes, what has a length, numbers of 4 bytes.
VARINT, FIXED_64, BYTES, FIXED_32 = 0, 1, 2, 5
#: Constants below this many bytes are read: shapes, biases.
SMALLEST_LEFT_OUT = 1 << 16
#: The most bits that a number may have; more bytes than these need are no number.
MOST_BITS = 64

#: The length of a weight in bytes, and its content in pieces.
Weight = tuple[int, Iterable[bytes]]


def write_whole(model: onnx.ModelProto, path: Path, weight_of: Callable[[onnx.TensorProto], Weight]) -> None:
    """Write a model as one file that holds its weights: the bytes of ``onnx.save``.

    Args:
        model: the model; weights that are outside are constants of its main graph.
        path: the file to write, of less than 2 GB.
        weight_of: returns a weight that is outside.
    """
    start, end = _around(model, "graph")
    first, last = _around(model.graph, "initializer")
    constants = [_written(tensor, weight_of) for tensor in model.graph.initializer]
    headers = [_header(model.graph, "initializer", constant.size) for constant in constants]
    size = sum(map(len, (first, *headers, last))) + sum(constant.size for constant in constants)
    with path.open("wb") as file:
        file.write(start + _header(model, "graph", size) + first)
        for constant, header in zip(constants, headers, strict=True):
            file.write(header + constant.before)
            for piece in constant.weight[1]:
                file.write(piece)
            file.write(constant.behind)
        file.write(last + end)


class _Written(NamedTuple):
    """What protobuf writes of a constant before and behind its weight."""

    before: bytes
    weight: Weight
    behind: bytes

    @property
    def size(self) -> int:
        """The bytes of the constant, its weight included."""
        return len(self.before) + self.weight[0] + len(self.behind)


def _written(tensor: onnx.TensorProto, weight_of: Callable[[onnx.TensorProto], Weight]) -> _Written:
    """Return what is written of a constant; where it holds its content itself, all is before a weight of no bytes."""
    if tensor.data_location != onnx.TensorProto.EXTERNAL:
        return _Written(tensor.SerializeToString(), (0, ()), b"")
    inside = onnx.TensorProto()
    inside.CopyFrom(tensor)
    inside.ClearField("data_location")
    del inside.external_data[:]
    before, behind = _around(inside, "raw_data")
    weight = weight_of(tensor)
    return _Written(before + _header(inside, "raw_data", weight[0]), weight, behind)


def _around(message: Any, field: str) -> tuple[bytes, bytes]:
    """Return what protobuf writes of a message before and behind one of its fields."""
    number = _number_of(message, field)
    before, behind = type(message)(), type(message)()
    for other, value in message.ListFields():
        part = before if other.number < number else behind
        if other.number == number:
            continue
        if isinstance(value, (bool, int, float, str, bytes)):
            setattr(part, other.name, value)
        else:
            getattr(part, other.name).MergeFrom(value)
    return before.SerializeToString(), behind.SerializeToString()


def _number_of(message: Any, field: str) -> int:
    return int(message.DESCRIPTOR.fields_by_name[field].number)


def _header(message: Any, field: str, length: int) -> bytes:
    """Return what protobuf writes before a field of so many bytes."""
    return _varint(_number_of(message, field) << 3 | BYTES) + _varint(length)


def _varint(number: int) -> bytes:
    """Return a number as protobuf writes it: seven bits a byte, the lowest first, the highest bit where more follow."""
    written = bytearray()
    while number > 0x7F:
        written.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*written, number])


def read_without_weights(path: Path) -> onnx.ModelProto:
    """Return a model without the content of its larger constants: their names, types and shapes are there.

    Weights in other files are left there, as ``onnx.load`` without external data leaves them.

    Raises:
        google.protobuf.message.DecodeError: the file is no model.
    """
    return read_apart(path, SMALLEST_LEFT_OUT)[0]


def read_apart(path: Path, smallest: int) -> tuple[onnx.ModelProto, dict[int, memoryview]]:
    """Return a model without the content of its larger constants, and that content, mapped into memory.

    Args:
        path: the file; weights in other files are left there.
        smallest: constants of the main graph of at least so many bytes are taken apart.

    Returns:
        The model, and the content of each constant that was taken apart, by its place among the graph's constants.

    Raises:
        google.protobuf.message.DecodeError: the file is no model.
    """
    model = onnx.ModelProto()
    weights: list[memoryview | None] = []
    without_weight = partial(_constant_without_weight, smallest=smallest, weights=weights)
    without_weights = partial(_without_weights, onnx.GraphProto(), "initializer", reduce=without_weight)
    try:
        with path.open("rb") as file:
            content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        kept = b"".join(_without_weights(model, "graph", content, without_weights))
    except ValueError:  # the file is damaged or empty: protobuf judges all of it
        kept = path.read_bytes()
        weights.clear()
    model.ParseFromString(kept)
    return model, {place: weight for place, weight in enumerate(weights) if weight is not None}


def _constant_without_weight(content: memoryview, smallest: int, weights: list[memoryview | None]) -> Iterator[bytes]:
    """Yield the fields of a constant but for a content of at least so many bytes; append that, or None."""
    number = _number_of(onnx.TensorProto(), "raw_data")
    weights.append(None)
    for other, start, end, inner in _fields(content):
        if other != number or end - inner < smallest:
            yield bytes(content[start:end])
        else:
            weights[-1] = content[inner:end]


def _without_weights(
    message: Any, field: str, content: memoryview, reduce: Callable[[memoryview], Iterator[bytes]]
) -> Iterator[bytes]:
    """Yield the fields of a message; of those with one name what ``reduce`` leaves of them."""
    number = _number_of(message, field)
    for other, start, end, inner in _fields(content):
        if other != number:
            yield bytes(content[start:end])
            continue
        left = b"".join(reduce(content[inner:end]))
        yield _header(message, field, len(left)) + left


def _fields(content: memoryview) -> Iterator[tuple[int, int, int, int]]:
    """Yield the number of each field of a message, where it starts and ends, and where its content starts.

    Raises:
        ValueError: it is no message.
    """
    place = 0
    while place < len(content):
        start = place
        key, place = _read_varint(content, place)
        inner = place
        if key & 7 == VARINT:
            _, place = _read_varint(content, place)
        elif key & 7 == BYTES:
            length, inner = _read_varint(content, place)
            place = inner + length
        elif key & 7 in (FIXED_64, FIXED_32):
            place += 8 if key & 7 == FIXED_64 else 4
        else:
            raise ValueError(f"no message: a field of the kind {key & 7}")
        if place > len(content):
            raise ValueError("no message: it ends within a field")
        yield key >> 3, start, place, inner


def _read_varint(content: memoryview, place: int) -> tuple[int, int]:
    """Return a number, and the place behind it."""
    number = shift = 0
    while place < len(content) and shift < MOST_BITS:
        byte = content[place]
        place += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, place
        shift += 7
    raise ValueError("no message: a number has no end")
