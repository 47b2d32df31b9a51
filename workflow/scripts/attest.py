"""State in formats of other tools what a release is and how it was judged, and sign it.

It writes into the release

- bom.cdx.json, a CycloneDX bill of materials: the ONNX files, the model they come from, the libraries that made them;
- statement.intoto.json, an in-toto statement about every file: these files passed these gates;
- with --private-key, model.sig: the signature of OpenSSF Model Signing over all files, those two among them.

The key is read by Model Signing alone, which must be installed: pip install model-signing pyopenssl. A release is
signed after it was made, so no job of the workflow ever sees a key. A release that is made anew is to be signed anew.
"""

import argparse
from pathlib import Path

from onnxproof.cli import UserError, run_script
from onnxproof.files import describe_files, write_json
from onnxproof.records.release import read_release_manifest
from onnxproof.release.attestation import make_bom, make_statement
from onnxproof.release.signature import BOM, SIGNATURE, STATEMENT, find_tool, sign, subjects_of
from verify_release import check_files, describe_failure, read_manifest


def attest(folder: Path, private_key: Path | None) -> list[str]:
    """Write the statement and the bill of materials of a release, and sign it where a key is given.

    Args:
        folder: the release.
        private_key: a PEM file; None does not sign.

    Returns:
        The files that were written.

    Raises:
        UserError: the folder is no release, a file is not as it was released, or it cannot be signed. The release is
            then not signed.
    """
    checks = check_files(folder, read_manifest(folder))
    if failed := [describe_failure(check) for check in checks if check.verdict == "FAIL"]:
        raise UserError(f"{folder}: not as it was released, so nothing is stated about it: {failed[-1]}")
    if private_key is not None:
        find_tool()
        if not private_key.is_file():
            raise UserError(f"{folder}: --private-key: {private_key}: no such file")
    for name in (STATEMENT, BOM, SIGNATURE):
        (folder / name).unlink(missing_ok=True)
    manifest = read_release_manifest(folder / "manifest.json")
    write_json(folder / BOM, make_bom(manifest, describe_files(folder), folder))
    write_json(folder / STATEMENT, make_statement(manifest, subjects_of(folder)))
    if private_key is None:
        return [BOM, STATEMENT]
    if problem := sign(folder, private_key):
        (folder / SIGNATURE).unlink(missing_ok=True)
        raise UserError(f"{folder}: not signed with {private_key}: {problem}")
    return [BOM, STATEMENT, SIGNATURE]


def main(argv: list[str] | None = None) -> None:
    """Parse the command line, attest the release and say which files were written."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="RELEASE", help="the folder of the release")
    parser.add_argument(
        "--private-key", type=Path, metavar="PEM", help="sign with this key on an elliptic curve, without a password"
    )
    args = parser.parse_args(argv)
    written = attest(args.folder, args.private_key)
    print(f"{args.folder}: wrote {', '.join(written)}")
    if args.private_key is None:
        print("It is not signed: --private-key names a key")


if __name__ == "__main__":
    run_script(main)
