"""Importing transformers without what it imports by the way and nothing here uses."""

import sys
from types import ModuleType


def import_transformers() -> ModuleType:
    """Import transformers as if scikit-learn were not installed, which costs two seconds of CPU time, and return it.

    It asks once, when it is imported, whether there is one, for a way to generate text with a second model. What
    imports scikit-learn afterwards, as sentence-transformers does, finds it.
    """
    if "transformers" not in sys.modules and "sklearn" not in sys.modules:
        sys.modules["sklearn"] = None  # type: ignore[assignment]
        try:
            import transformers
        finally:
            del sys.modules["sklearn"]
    import transformers

    return transformers
