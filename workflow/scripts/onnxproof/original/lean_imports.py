"""Importing transformers and sentence-transformers without what they import by the way and nothing here uses."""

import importlib
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

#: What sentence-transformers takes functions from, to evaluate models and to compare sparse vectors.
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


def import_transformers() -> ModuleType:
    """Import transformers as if scikit-learn were not installed, which costs two seconds of CPU time, and return it.

    It asks once, when it is imported, whether there is one, for a way to generate text with a second model. What
    imports scikit-learn afterwards finds it.
    """
    if "transformers" not in sys.modules and "sklearn" not in sys.modules:
        sys.modules["sklearn"] = None  # type: ignore[assignment]
        try:
            import transformers
        finally:
            del sys.modules["sklearn"]
    import transformers

    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # a log has lines
    return transformers


def import_sentence_transformers() -> ModuleType:
    """Import sentence-transformers and return it; scikit-learn follows when a function of its metrics is called."""
    import_transformers()
    if "sentence_transformers" not in sys.modules and METRICS not in sys.modules:
        sys.modules[METRICS] = LateModule(METRICS)
        try:
            import sentence_transformers
        finally:
            del sys.modules[METRICS]
    import sentence_transformers

    return sentence_transformers
