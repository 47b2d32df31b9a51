"""State in formats of other tools what a release is and how it was judged, and sign it.

It writes into the release

- bom.cdx.json, a CycloneDX bill of materials: the ONNX files, the model they come from, the libraries that made them;
- statement.intoto.json, an in-toto statement about every file: these files passed these gates;
- with --private-key or --keyless, model.sig: the signature of OpenSSF Model Signing over all files, those two among
  them.

The key is read by Model Signing alone, which must be installed: pip install model-signing pyopenssl. A release is
signed after it was made, so no job of the workflow ever sees a key. A release that is made anew is to be signed anew.

Without a key, Sigstore confirms who signs: its servers must be reached, and a public log keeps the signer's identity.
"""

import argparse
from pathlib import Path

from onnxproof.cli import UserError, run_script
from onnxproof.files import describe_files, sha256_of, write_json
from onnxproof.records.release import read_release_manifest
from onnxproof.release.attestation import make_bom, make_statement
from onnxproof.release.signature import BOM, SIGNATURE, STATEMENT, find_tool, sign
from verify_release import check_files, describe_failure, read_manifest


def attest(folder: Path, private_key: Path | None, is_keyless: bool = False) -> list[str]:
    """Write the statement and the bill of materials of a release, and sign it where that is asked for.

    Args:
        folder: the release.
        private_key: a PEM file to sign with.
        is_keyless: whether to sign without a key, by an identity that Sigstore vouches for.

    Returns:
        The files that were written.

    Raises:
        UserError: the folder is no release, a file is not as it was released, or it cannot be signed. The release is
            then not signed.
    """
    files = describe_files(folder)  # read once, so that what is stated is what was checked
    hashed = {name: entry["sha256"] for name, entry in files.items()}
    checks = check_files(folder, read_manifest(folder), hashed=hashed)
    if failed := [describe_failure(check) for check in checks if check.verdict == "FAIL"]:
        raise UserError(f"{folder}: not as it was released, so nothing is stated about it: {failed[-1]}")
    is_signed = is_keyless or private_key is not None
    if is_signed:
        find_tool()
        if private_key is not None and not private_key.is_file():
            raise UserError(f"{folder}: --private-key: {private_key}: no such file")
    for name in (STATEMENT, BOM, SIGNATURE):
        (folder / name).unlink(missing_ok=True)
        hashed.pop(name, None)
        files.pop(name, None)
    manifest = read_release_manifest(folder / "manifest.json")
    write_json(folder / BOM, make_bom(manifest, files, folder))
    write_json(folder / STATEMENT, make_statement(manifest, {**hashed, BOM: sha256_of(folder / BOM)}))
    if not is_signed:
        return [BOM, STATEMENT]
    if problem := sign(folder, private_key):
        (folder / SIGNATURE).unlink(missing_ok=True)
        how = f"with {private_key}" if private_key else "with --keyless"
        raise UserError(f"{folder}: not signed {how}: {problem}")
    return [BOM, STATEMENT, SIGNATURE]


def main(argv: list[str] | None = None) -> None:
    """Parse the command line, attest the release and say which files were written."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="RELEASE", help="the folder of the release")
    how = parser.add_mutually_exclusive_group()
    how.add_argument(
        "--private-key", type=Path, metavar="PEM", help="sign with this key on an elliptic curve, without a password"
    )
    how.add_argument(
        "--keyless", action="store_true", help="sign by your identity, or that of a CI job, which Sigstore confirms"
    )
    args = parser.parse_args(argv)
    written = attest(args.folder, args.private_key, args.keyless)
    print(f"{args.folder}: wrote {', '.join(written)}")
    if SIGNATURE not in written:
        print("It is not signed: --private-key names a key, and --keyless needs none")


if __name__ == "__main__":
    run_script(main)
