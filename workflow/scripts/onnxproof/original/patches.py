"""Every change to the code of another library: its name, the versions it was written for, and its reason.

Each is a context manager that takes the change back. With another version of the library one line says so, once, and
the change is made all the same: whatever comes of it is compared with the original. If there is nothing left to change,
a ``UserError`` says which library is to blame. ``tests/unit/original/test_patches.py`` shows of each that it is needed.
"""

import importlib
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import wraps
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType
from typing import Any, ParamSpec, TypeVar

from onnxproof.cli import UserError

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class Patch:
    """A change to another library.

    Attributes:
        library: the distribution that is changed, or made to import something else.
        releases: those that it was written for, such as 5.24 for all of 5.24.x.
        reason: what the library does without it.
    """

    library: str
    releases: tuple[str, ...]
    reason: str

    def unknown_version(self) -> str | None:
        """Return the installed version if it is none of the releases that the patch was written for."""
        try:
            installed = version(self.library)
        except PackageNotFoundError:
            return None
        return None if any(f"{installed}.".startswith(f"{release}.") for release in self.releases) else installed


#: All of them, by the names of their functions.
PATCHES: dict[str, Patch] = {}
#: Those whose unknown version was told in this process.
_told: set[str] = set()


def patch(
    library: str, *releases: str, reason: str
) -> Callable[[Callable[P, Iterator[T]]], Callable[P, AbstractContextManager[T]]]:
    """Return a decorator that lists a patch, and makes a context manager of it; see ``Patch``."""

    def listed(change: Callable[P, Iterator[T]]) -> Callable[P, AbstractContextManager[T]]:
        name = change.__name__
        PATCHES[name] = Patch(library, releases, reason)

        @wraps(change)
        def checked(*values: P.args, **options: P.kwargs) -> AbstractContextManager[T]:
            installed = PATCHES[name].unknown_version()
            if installed and name not in _told:
                _told.add(name)
                print(
                    f"note: {library} {installed} is installed, but {name} changes it as {' and '.join(releases)} "
                    "needed it: install the version of the lock, or check that the change is still needed",
                    flush=True,
                )
            return contextmanager(change)(*values, **options)

        return checked

    return listed


def attribute_of(owner: Any, name: str, library: str) -> Any:
    """Return what a patch is about to replace, as its owner itself has it.

    Raises:
        UserError: the owner has no such part.
    """
    try:
        return vars(owner)[name]
    except KeyError:
        raise UserError(
            f"{library} has no {name} in {owner.__name__}, which this pipeline changes: install the version of the lock"
        ) from None


# --------------------------------------------------------------------------------------- what libraries import


#: What sentence-transformers takes functions from.
METRICS = "sklearn.metrics"


class LateModule(ModuleType):
    """Stands for a module of functions, and imports it when the first of them is called."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """Return a function that calls the module's function of that name."""
        if name.startswith("__"):  # what the import system asks about a module
            raise AttributeError(name)

        def call(*values: Any, **options: Any) -> Any:
            return getattr(importlib.import_module(self.__name__), name)(*values, **options)

        return call


@patch(
    "sentence-transformers",
    "6.2",
    "5.7",
    reason="It imports scikit-learn to evaluate models and to compare sparse vectors, which nothing here does.",
)
def metrics_imported_late() -> Iterator[None]:
    """Import sentence-transformers so that scikit-learn follows when a function of its metrics is called."""
    if "sentence_transformers" in sys.modules or METRICS in sys.modules:
        yield
        return
    sys.modules[METRICS] = LateModule(METRICS)
    try:
        yield
    finally:
        del sys.modules[METRICS]


# ------------------------------------------------------------------------------------------------ what they load


@patch(
    "transformers",
    "5.24",
    reason="sentence-transformers does not pass on which weights were missing, left out, or of another shape.",
)
def recorded_reports() -> Iterator[list[tuple[Any, dict[str, Any]]]]:
    """Collect what transformers found of each network that is loaded within: ``[(network, report)]``.

    A report has ``missing_keys``, ``unexpected_keys`` and ``mismatched_keys``.
    """
    from transformers import PreTrainedModel

    reports: list[tuple[Any, dict[str, Any]]] = []
    original = attribute_of(PreTrainedModel, "from_pretrained", "transformers")

    def recording(kind: Any, *places: Any, **options: Any) -> Any:
        asked = options.pop("output_loading_info", False)
        options |= {"output_loading_info": True, "ignore_mismatched_sizes": True}
        network, report = original.__func__(kind, *places, **options)
        reports.append((network, report))
        return (network, report) if asked else network

    PreTrainedModel.from_pretrained = classmethod(recording)  # type: ignore[method-assign, assignment]
    try:
        yield reports
    finally:
        PreTrainedModel.from_pretrained = original  # type: ignore[method-assign]


# ----------------------------------------------------------------------------------------------- what is traced


@patch(
    "torch",
    "2.13",
    reason="torch.export looks up the lines of Python that made each node. They cost a tenth of an export, and a graph "
    "goes without them.",
)
def without_stack_traces() -> Iterator[None]:
    """Have torch.export not look up where in Python each node was made."""
    import torch

    before = torch.fx.config.do_not_emit_stack_traces
    torch.fx.config.do_not_emit_stack_traces = True
    try:
        yield
    finally:
        torch.fx.config.do_not_emit_stack_traces = before


@patch(
    "transformers",
    "5.24",
    reason="Moonshine divides floating-point numbers and rounds them with int, which makes a constant of the traced "
    "length.",
)
def lengths_in_integers(encoder: Any) -> Iterator[None]:
    """Have Moonshine's encoder count the frames that its convolutions leave by divisions of integers; no other's."""
    import torch

    if type(encoder).__name__ != "MoonshineEncoder":
        yield
        return
    name = "_get_feat_extract_output_lengths"
    convolutions = [module for module in encoder.children() if isinstance(module, torch.nn.Conv1d)]
    if not (convolutions and hasattr(encoder, name)):
        raise UserError(f"transformers' MoonshineEncoder has no {name}, or no convolutions that it counts for")

    def count(length: Any) -> Any:
        for convolution in convolutions:
            length = (length - convolution.kernel_size[0]) // convolution.stride[0] + 1
        return length

    setattr(encoder, name, count)
    try:
        yield
    finally:
        delattr(encoder, name)


@patch(
    "transformers",
    "5.24",
    reason="The vision encoder of Qwen2-VL walks over a list of image sizes, which cannot be traced.",
)
def attention_by_masks(visual: Any, masks: Sequence[Any]) -> Iterator[None]:
    """Have the layers of Qwen2-VL's vision encoder attend as masks say, float32 (patches, patches), which are added."""
    import torch

    blocks = [block.attn for block in visual.blocks]

    def attend(layer: Any, mask: Any) -> Callable[..., Any]:
        rotate = attribute_of(sys.modules[type(layer).__module__], "apply_rotary_pos_emb_vision", "transformers")

        def forward(hidden_states: Any, position_embeddings: Any, **_: Any) -> Any:
            length = hidden_states.shape[0]
            queries, keys, values = layer.qkv(hidden_states).reshape(length, 3, layer.num_heads, -1).unbind(1)
            queries, keys = rotate(queries, keys, *position_embeddings)
            queries, keys, values = (part.transpose(0, 1) for part in (queries, keys, values))
            weights = torch.softmax(queries @ keys.transpose(1, 2) * layer.scaling + mask, dim=-1)
            return layer.proj((weights @ values).transpose(0, 1).reshape(length, -1))

        return forward

    for layer, mask in zip(blocks, masks, strict=True):
        layer.forward = attend(layer, mask)
    try:
        yield
    finally:
        for layer in blocks:
            del layer.forward


@patch(
    "optimum-onnx",
    "0.1",
    reason="It joins the files of a large model's weights, one a tensor, while it holds the model itself, and for that "
    "reads all of them into memory again.",
)
def weights_left_apart(convert: ModuleType) -> Iterator[None]:
    """Keep Optimum from joining files of weights; ``gather_weights`` joins them tensor by tensor.

    ``convert`` is ``optimum.exporters.onnx.convert``, which only the environment of Optimum has.
    """
    name = "check_model_uses_external_data"
    original = attribute_of(convert, name, "optimum-onnx")
    setattr(convert, name, lambda model: False)
    try:
        yield
    finally:
        setattr(convert, name, original)
