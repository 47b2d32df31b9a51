"""Name the nodes of ONNX files that execution providers refuse, by what the providers' documentation says.

Nothing is run. The status is 1 where a provider refuses a node.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from onnxproof.cli import UserError, run_script
from onnxproof.graph.providers import Judged, Provider, judge_graph, provider_names, read_provider


def check_file(path: Path, providers: list[Provider]) -> dict[str, Judged]:
    """Return what each provider makes of one ONNX file, by the provider's name.

    Raises:
        UserError: the file cannot be read as ONNX.
    """
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load(path, load_external_data=False)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except DecodeError as error:
        raise UserError(f"{path}: no ONNX file") from error
    if not model.graph.node:
        raise UserError(f"{path}: no ONNX file, or one without nodes")
    return {provider.name: judge_graph(model, provider) for provider in providers}


def describe(path: Path, provider: Provider, judged: Judged) -> str:
    """Return a verdict in lines: the first says how many nodes are refused, the others name each of them."""
    first = f"{path} on {provider.title}: {len(judged.refused)} of {judged.nodes} nodes are refused"
    if judged.not_fixed:
        first += f"; the shapes of {', '.join(judged.not_fixed)} must be fixed first"
    return "\n".join([first, *(f"  {refused}" for refused in judged.refused)])


def as_record(judged: Judged) -> dict[str, Any]:
    """Return a verdict as JSON holds it."""
    return {
        "nodes": judged.nodes,
        "refused": [vars(refused) for refused in judged.refused],
        "not_fixed": judged.not_fixed,
    }


def main(argv: list[str] | None = None) -> None:
    """Parse the command line, check and print; ends the process with status 1 where a node is refused."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="ONNX files; their weights are not read")
    parser.add_argument(
        "--targets", nargs="+", default=provider_names(), choices=provider_names(), help="providers (default: all)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args(argv)
    providers = [read_provider(name) for name in args.targets]
    found = {path: check_file(path, providers) for path in args.files}
    if args.json:
        told = {str(path): {name: as_record(judged) for name, judged in each.items()} for path, each in found.items()}
        print(json.dumps(told, indent=1))
    else:
        for path, each in found.items():
            for provider in providers:
                print(describe(path, provider, each[provider.name]))
    if any(judged.refused for each in found.values() for judged in each.values()):
        sys.exit(1)


if __name__ == "__main__":
    run_script(main)
