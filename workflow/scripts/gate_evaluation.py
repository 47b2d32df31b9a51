"""Judge a variant on labelled data: exit non-zero unless it is not worse than the original by more than a limit.

The rule ``release`` judges by the same measurements, so a release that an earlier verdict allowed is deleted.
"""

import argparse
from pathlib import Path

from onnxproof.cli import UserError, run_script
from onnxproof.evaluation.gate import judge_record
from onnxproof.files import write_text
from onnxproof.records.evaluation import read_evaluation


def gate(evaluation_file: Path, not_worse_by: float | None, passed_file: Path) -> None:
    """Write ``passed_file`` when the variant is not worse than the original by more than ``not_worse_by``.

    Raises:
        UserError: it is worse, or the inputs are too few to tell; the message says how many would be needed.
    """
    record = read_evaluation(evaluation_file)
    verdict = judge_record(record, not_worse_by)
    name = f"{record['model']} {record['variant']}"
    if not verdict.passed:
        raise UserError(
            f"{name} is not proven to be as good as the original: {verdict}. The measurements are in "
            f"{evaluation_file}; the limit in config.yaml is evaluation.not_worse_by"
        )
    print(f"{name}: {verdict}", flush=True)
    write_text(passed_file, f"{name}: {verdict}\n")


def main(argv: list[str] | None = None) -> None:
    """Parse the command line and judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--evaluation", type=Path, required=True, help="what was measured on labelled data")
    parser.add_argument("--not-worse-by", type=float, help="how much worse it may be, in the metric's unit")
    parser.add_argument("--output", type=Path, required=True, help="file to write when the gate is passed")
    args = parser.parse_args(argv)
    gate(args.evaluation, args.not_worse_by, args.output)


if __name__ == "__main__":
    run_script(main)
