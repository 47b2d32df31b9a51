"""Final answers that are no plain value: what the original's interface, or a program of a model card, gives.

Arrays are NumPy's here. In ``final.json``, each is named as ``FinalRecord`` says.
"""

from typing import Any, TypedDict


class Tag(TypedDict):
    """A tagged part of a text."""

    entity: str
    """The label."""
    score: float
    """Its probability."""
    start: int
    """The first character in the text."""
    end: int
    """The character behind the last one."""


class Span(TypedDict):
    """An answer to a question."""

    answer: str
    """Words of the context."""
    start: int
    """The first character in the context."""
    end: int
    """The character behind the last one."""
    score: float
    """Its probability."""


class Detection(TypedDict):
    """An object in an image."""

    label: str
    """What it is."""
    score: float
    """Its probability."""
    box: list[float]
    """Left, top, right and bottom, in pixels."""


class Segment(TypedDict):
    """A thing in an image, or what is around things."""

    id: int
    """The number that its pixels have."""
    label: str
    """What it is."""
    score: float
    """Its probability."""


class Segments(TypedDict):
    """An image in segments that do not overlap."""

    segments: list[Segment]
    """What they are."""
    places: Any
    """The number of each pixel's segment, int (height, width); 0 where there is none."""


class Written(TypedDict):
    """A text that was generated."""

    text: str
    """As the tokenizer decodes it."""
    tokens: list[int]
    """The tokens that were generated."""
