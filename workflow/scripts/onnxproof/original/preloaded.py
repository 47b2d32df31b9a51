"""Importing this module imports what jobs with PyTorch need, whatever their model: ``fork_server`` does so once a run.

It imports neither onnxruntime nor pandas, which start threads.
"""

import importlib

from onnxproof.original.lean_imports import import_sentence_transformers

#: Some of them are imported only when something is exported.
EXPORTER = (
    "transformers.exporters.exporter_onnx",
    "torch.export._trace",
    "torch.onnx._internal.exporter._core",
    "torch.onnx._internal.exporter._torchlib.ops",
)
OTHERS = ("transformers.pipelines", "networkx")


def _import_patched_models() -> None:
    """Import the models that transformers' exporter changes for each export, whichever model that is of."""
    from transformers.exporters.utils import apply_patches

    with apply_patches("dynamo"), apply_patches("onnx"):
        pass


def _list_renamed_weights() -> None:
    """Have transformers make its table of renamed weights of all types, which it makes for the first model it loads."""
    from transformers.conversion_mapping import get_checkpoint_conversion_mapping

    get_checkpoint_conversion_mapping("")  # type: ignore[no-untyped-call]


for _module in (*EXPORTER, *OTHERS):
    importlib.import_module(_module)
import_sentence_transformers()
_import_patched_models()
_list_renamed_weights()
