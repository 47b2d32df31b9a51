"""The file ``onnxproof/__init__.py`` of a wheel.

A wheel holds ``onnxproof/`` as a clone is laid out, so that its modules find scripts, resources and schemas beside them
and the workflow can be used as a module: ``snakefile: onnxproof.SNAKEFILE``.
"""

from pathlib import Path

_FOLDER = Path(__file__).resolve().parent

#: The workflow, for the ``module`` statement of another one.
SNAKEFILE = str(_FOLDER / "Snakefile")

__path__ = [str(_FOLDER / "workflow" / "scripts" / "onnxproof")]
