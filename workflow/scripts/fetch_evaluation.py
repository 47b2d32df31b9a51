"""Download one file of a dataset on the Hugging Face Hub, at a commit: the labelled data of a model."""

import argparse
import shutil
from pathlib import Path

from onnxproof.cli import UserError, first_line, run_script
from onnxproof.files import sha256_of


def fetch(model: str, dataset: str, revision: str, file: str, target: Path) -> None:
    """Write a file of a dataset's commit to ``target``.

    Raises:
        UserError: the Hub does not have it, or does not give it.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError

    try:
        cached = hf_hub_download(dataset, file, repo_type="dataset", revision=revision)
    except (EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        raise UserError(
            f"{model}: evaluation: {file} of the dataset {dataset} at {revision} cannot be downloaded: "
            f"{first_line(error)}"
        ) from error
    shutil.copyfile(cached, target)
    print(f"{dataset} {revision} {file}: sha256 {sha256_of(target)}", flush=True)


def main(argv: list[str] | None = None) -> None:
    """Parse the command line and download."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="the model's name in config.yaml")
    parser.add_argument("--hub", required=True, help="dataset on the Hugging Face Hub, as owner/name")
    parser.add_argument("--revision", required=True, help="its commit, 40 hexadecimal digits")
    parser.add_argument("--file", required=True, help="the file's path in the dataset")
    parser.add_argument("--output", type=Path, required=True, help="file to write")
    args = parser.parse_args(argv)
    fetch(args.model, args.hub, args.revision, args.file, args.output)


if __name__ == "__main__":
    run_script(main)
