"""Importing transformers and sentence-transformers without progress bars, and without what nothing here uses."""

from types import ModuleType

from onnxproof.original.patches import metrics_imported_late


def import_transformers() -> ModuleType:
    """Import transformers and return it; it shows no progress bars from then on."""
    import transformers

    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # a log has lines
    return transformers


def import_sentence_transformers() -> ModuleType:
    """Import sentence-transformers and return it; scikit-learn follows when a function of its metrics is called."""
    import_transformers()
    with metrics_imported_late():
        import sentence_transformers

    return sentence_transformers
