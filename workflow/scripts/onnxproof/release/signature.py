"""The signature of a release and the statement that it covers: their names, and whether they hold.

The signature is that of OpenSSF Model Signing, whose program is started: no key is read here, and nothing is computed
with one. This module is part of every release.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from onnxproof.cli import UserError
from onnxproof.files import SNAKEMAKE_MARK, describe_files

#: What ``attest`` writes into a release: an in-toto statement, a bill of materials, and the signature over all files.
STATEMENT, BOM, SIGNATURE = "statement.intoto.json", "bom.cdx.json", "model.sig"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
TOOL = "model_signing"
LONGEST_REASON = 160
INSTALL = "pip install model-signing pyopenssl"
FAILED = "failed with error: "
_SCRIPTS = Path(__file__).resolve().parents[2]
#: `make setup-signing` makes it in a clone. In a release, this module is elsewhere, and no folder near it is looked at.
OWN_ENVIRONMENT = _SCRIPTS.parents[1] / ".venv-model-signing" / "bin" if _SCRIPTS.name == "scripts" else None


class Identity(NamedTuple):
    """Who signed without a key of their own."""

    name: str  #: such as an e-mail address, or the address of a workflow
    provider: str  #: the address of the OpenID Connect provider that vouches for it


def find_tool() -> str:
    """Return the path of Model Signing's program: beside this Python, on the PATH, or in the clone's environment.

    Raises:
        UserError: it is not installed.
    """
    places = [str(Path(sys.executable).parent), os.environ.get("PATH", "")]
    places += [str(OWN_ENVIRONMENT)] if OWN_ENVIRONMENT else []
    found = next(filter(None, (shutil.which(TOOL, path=place) for place in places)), None)
    if found is None:
        raise UserError(f"a signature needs the program {TOOL}, which is not installed: {INSTALL}")
    return found


def run_tool(*arguments: str, asks: bool = False) -> str | None:
    """Run Model Signing's program; return None if it succeeded, and otherwise its last line.

    Args:
        arguments: those of the program.
        asks: whether it may ask the user to sign in, so that what it says is shown as it comes.

    Raises:
        UserError: it is not installed, or cannot run.
    """
    command = [find_tool(), "--log-level", "ERROR", *arguments]
    lines = []
    try:
        with subprocess.Popen(
            command,
            stdout=None if asks else subprocess.PIPE,
            stderr=subprocess.PIPE if asks else subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as process:
            for line in process.stderr or process.stdout or ():
                lines += [line.strip()] if line.strip() else []
                if asks and FAILED not in line:  # what failed is told once, by the caller
                    print(line, end="", file=sys.stderr, flush=True)
    except OSError as error:
        raise UserError(f"{command[0]}: cannot be run: {error.strerror}") from None
    if any("ModuleNotFoundError" in line for line in lines):
        raise UserError(f"{command[0]}: {lines[-1]}; {INSTALL}")
    return None if process.returncode == 0 else shortened((lines or ["it ended without a word"])[-1])


def shortened(line: str) -> str:
    """Return what Model Signing says of a failure, without the digests: the first file, of several."""
    line = line.split(FAILED, 1)[-1].split(": Expected ", 1)[0]
    if "TUF metadata" in line:  # the list of keys that Sigstore's servers have now
        line = f"Sigstore's servers cannot be reached: {line}"
    return line.replace('["', "").removesuffix('"]')[:LONGEST_REASON]


def sign(folder: Path, private_key: Path | None) -> str | None:
    """Sign every file of a release into ``model.sig``; return None, or why it was not signed.

    Args:
        folder: the release.
        private_key: a PEM file with a key on an elliptic curve, without a password. With None, Sigstore vouches for
            an identity: that of the job in CI services that lend one, and otherwise that of a user, who is asked to
            sign in.
    """
    # Snakemake leaves its mark in the folder, and a copy of the release lacks it.
    options = ("--signature", str(folder / SIGNATURE), "--ignore-paths", str(folder / SNAKEMAKE_MARK))
    if private_key is None:
        return run_tool("sign", "sigstore", str(folder), "--use_ambient_credentials", *options, asks=True)
    return run_tool("sign", "key", str(folder), "--private_key", str(private_key), *options)


def verify_signature(folder: Path, signer: Path | Identity) -> str | None:
    """Return None if a release is as its signer signed it, and otherwise what is wrong.

    Files are read, hashed and compared by Model Signing. A file that was added is wrong too.

    Args:
        folder: the release.
        signer: the PEM file of a public key, or an identity, which only Sigstore's servers can confirm.
    """
    if not (folder / SIGNATURE).is_file():
        return "the release is not signed"
    options = ("--signature", str(folder / SIGNATURE))
    if isinstance(signer, Identity):
        expected = ("--identity", signer.name, "--identity_provider", signer.provider)
        return run_tool("verify", "sigstore", str(folder), *options, *expected)
    return run_tool("verify", "key", str(folder), *options, "--public_key", str(signer))


def subjects_of(folder: Path) -> dict[str, str]:
    """Return the hex sha256 of each file that a statement is about: all but itself and the signature."""
    return {
        name: entry["sha256"] for name, entry in describe_files(folder).items() if name not in (STATEMENT, SIGNATURE)
    }


def statement_problem(folder: Path) -> str | None:
    """Return what is wrong with the statement of a release; None if each of its subjects is a file that is there.

    Other files may be there too: the Hub adds ``.gitattributes``.
    """
    try:
        statement = json.loads((folder / STATEMENT).read_text(encoding="utf-8"))
        stated = {subject["name"]: subject["digest"]["sha256"] for subject in statement["subject"]}
    except (OSError, ValueError, RecursionError, TypeError, KeyError):
        return "it is no statement of in-toto that can be read"
    if statement.get("_type") != STATEMENT_TYPE:
        return f"its _type is {str(statement.get('_type'))[:80]!r}, must be {STATEMENT_TYPE}"
    found = subjects_of(folder)
    others = sorted(name for name, digest in stated.items() if found.get(name) != digest)
    more = f" and {len(others) - 1} more" if len(others) > 1 else ""
    return f"it is about other files: {others[0]}{more}" if others else None
