"""The command ``onnxproof`` of an installed package: each step of the workflow is one of its subcommands."""

import importlib
import sys
from importlib.metadata import version

from onnxproof.cli import run_script
from onnxproof.places import SCRIPTS

#: The scripts that a user may want to run by hand, in the order of the workflow.
COMMANDS = (
    "check",
    "check_targets",
    "download",
    "export",
    "optimize",
    "quantize",
    "record_reference",
    "measure_parity",
    "gate_parity",
    "measure_browser",
    "fetch_evaluation",
    "keep_aside",
    "record_evaluation",
    "evaluate",
    "score_evaluation",
    "gate_evaluation",
    "benchmark",
    "release",
    "verify_release",
    "publish_release",
    "summary",
)


def main(argv: list[str] | None = None) -> None:
    """Run the script that the first argument names, with the other arguments; ends the process with its status.

    Raises:
        SystemExit: always; with status 2 if there is no such command.
    """
    arguments = sys.argv[1:] if argv is None else argv
    name, rest = (arguments[0], arguments[1:]) if arguments else ("", [])
    if name == "--version":
        print(version("onnxproof"))
        sys.exit(0)
    if name not in COMMANDS:
        usage = f"usage: onnxproof COMMAND …\ncommands: {', '.join(COMMANDS)}\nonnxproof COMMAND --help explains one."
        print(usage, file=sys.stdout if name in ("--help", "-h") else sys.stderr)
        sys.exit(0 if name in ("--help", "-h") else 2)
    sys.path.insert(0, str(SCRIPTS))  # scripts import one another
    sys.argv[0] = f"onnxproof {name}"
    script = importlib.import_module(name)
    run_script(lambda: script.main(rest))
