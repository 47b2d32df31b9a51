"""Run passes of Olive over one ONNX file: run by the interpreter that has Olive, alone.

Usage: olive_passes.py SOURCE FOLDER NAME=PASS... Each PASS, such as OnnxDynamicQuantization, is given its defaults, and
writes what it makes of the file SOURCE, with the JSON files that ``olive run`` leaves, into a folder NAME below FOLDER.
"""

import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

os.environ["OLIVE_DISABLE_TELEMETRY"] = "1"  # read when Olive is imported


def run_passes(source: str, folder: str, *named: str) -> None:
    """Write the output of each pass."""
    from olive.workflows import run

    for each in named:
        name, _, kind = each.partition("=")
        with TemporaryDirectory() as cache:
            run(
                {
                    "input_model": {"type": "OnnxModel", "model_path": source},
                    "passes": {name: {"type": kind}},
                    "cache_dir": cache,
                    "output_dir": str(Path(folder, name)),
                    "log_severity_level": 3,
                }
            )


if __name__ == "__main__":
    run_passes(*sys.argv[1:])
