"""The command ``onnxproof`` of an installed package: one command for one model, and each step of the workflow."""

import importlib
import sys
from importlib.metadata import version

from onnxproof.cli import run_script
from onnxproof.places import SCRIPTS

#: What most users need: each command with the script that it runs and what it is for.
MAIN_COMMANDS = {
    "check": ("check", "say what a model is and whether it can be converted, from its small files"),
    "convert": ("convert", "turn one model into a verified ONNX release"),
    "verify": ("verify_release", "verify a release on this machine"),
    "audit": ("audit", "hold ONNX files that others published to the model that they were made from"),
    "attest": ("attest", "state in formats of other tools what a release is and how it was judged, and sign it"),
}

#: The scripts of the rules, which a user may want to run by hand, in the order of the workflow.
COMMANDS = (
    "check",
    "audit",
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
    "fix_shapes",
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
    if name not in MAIN_COMMANDS and name not in COMMANDS:
        print(usage(), file=sys.stdout if name in ("--help", "-h") else sys.stderr)
        sys.exit(0 if name in ("--help", "-h") else 2)
    sys.path.insert(0, str(SCRIPTS))  # scripts import one another
    sys.argv[0] = f"onnxproof {name}"
    script = importlib.import_module(MAIN_COMMANDS[name][0] if name in MAIN_COMMANDS else name)
    run_script(lambda: script.main(rest))


def usage() -> str:
    """Return which commands there are, as lines for a terminal."""
    described = "\n".join(f"  {name:<9} {what}" for name, (_, what) in MAIN_COMMANDS.items())
    steps = ", ".join(name for name in COMMANDS if name not in MAIN_COMMANDS)
    return (
        f"usage: onnxproof COMMAND …\n\n{described}\n\nThe steps of the workflow are commands too: {steps}\n"
        "onnxproof COMMAND --help explains one."
    )
