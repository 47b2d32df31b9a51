"""What `onnxproof attest` states about a release, its signature, and how a release that was altered is refused."""

import json
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from conftest import install, made_once, python_with

import attest
import verify_release
from messages import check_message, raises
from onnxproof import files
from onnxproof.cli import UserError
from onnxproof.files import SNAKEMAKE_MARK, describe_files, sha256_of
from onnxproof.release import signature
from onnxproof.release.attestation import make_bom
from project import ROOT
from publish_release import check_release

CYCLONEDX = "cyclonedx-python-lib[json-validation]==11.12.0"
#: One file of each kind that a signed release holds.
KINDS = (
    "README.md",
    "SHA256SUMS",
    "bom.cdx.json",
    "config.json",
    "golden.npz",
    "manifest.json",
    "model.sig",
    "onnx/model.onnx",
    "onnx/model_quantized.onnx",
    "statement.intoto.json",
    "tokenizer.json",
    "verifier/onnxproof/parity/gate.py",
    "verify_release.py",
)
MAKE_KEYS = """
import sys
from cryptography.hazmat.primitives import serialization as s
from cryptography.hazmat.primitives.asymmetric import ec
for name in sys.argv[1:]:
    key = ec.generate_private_key(ec.SECP256R1())
    private = key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption())
    public = key.public_key().public_bytes(s.Encoding.PEM, s.PublicFormat.SubjectPublicKeyInfo)
    open(f"{name}.pem", "wb").write(private)
    open(f"{name}.pub", "wb").write(public)
"""
CHECK_STATEMENT = """
import sys
from google.protobuf import json_format
from in_toto_attestation.predicates.test_result.v0 import test_result_pb2
from in_toto_attestation.v1 import statement_pb2
from in_toto_attestation.v1.statement import Statement
read = json_format.Parse(sys.stdin.read(), statement_pb2.Statement())
Statement(list(read.subject), read.predicate_type, json_format.MessageToDict(read.predicate)).validate()
result = json_format.Parse(json_format.MessageToJson(read.predicate), test_result_pb2.TestResult())
print(result.result, len(read.subject), len(result.passed_tests), read.predicate_type)
"""
CHECK_BOM = """
import sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
text, validator = sys.stdin.read(), JsonStrictValidator(SchemaVersion.V1_6)
print(validator.validate_str(text) or "valid")
print("invalid" if validator.validate_str(text.replace('"task"', '"job"')) else "valid")
"""


@pytest.fixture
def release(finished, tmp_path) -> Path:
    """A copy of a release, as it lies in results/: with Snakemake's mark."""
    folder = tmp_path / "release"
    shutil.copytree(finished.folder / "results/stars.v1/release", folder)
    assert (folder / SNAKEMAKE_MARK).is_file()
    return folder


@pytest.fixture(scope="session")
def signing(tmp_path_factory) -> Path:
    """The programs of the locked environment of Model Signing, with two pairs of keys beside them."""

    def make(folder: Path) -> None:
        install(["python3.11", "-m", "venv", "environment"], folder)
        lock = str(ROOT / "envs/peers/model-signing.txt")
        locked = ["-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes", "-r", lock]
        install(["environment/bin/python", *locked], folder)
        command = ["environment/bin/python", "-c", MAKE_KEYS, "signer", "other"]
        subprocess.run(command, cwd=folder, check=True, timeout=60)

    return made_once(tmp_path_factory, "signing", make)


@pytest.fixture
def signed(release, signing, monkeypatch) -> Path:
    """The release, signed; a copy of it elsewhere, without Snakemake's mark, is what others get."""
    monkeypatch.setattr(signature, "OWN_ENVIRONMENT", signing / "environment/bin")
    attest.main([str(release), "--private-key", str(signing / "signer.pem")])
    received = release.with_name("received")
    shutil.copytree(release, received, ignore=shutil.ignore_patterns(SNAKEMAKE_MARK))
    return received


def verified(folder: Path, capsys, *options: str) -> tuple[int, dict[str, dict[str, str]], str]:
    """Verify a release; return the status, the checks by what they are about, and how it is signed."""
    capsys.readouterr()
    status = verify_release.main([str(folder), "--threads", "1", *options, "--json"])
    result = json.loads(capsys.readouterr().out or '{"checks": [], "signature": "not read"}')
    return status, {check["subject"]: check for check in result["checks"]}, result["signature"]


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x01
    path.write_bytes(content)


def test_the_same_release_gives_the_same_statement_and_bill_of_materials(release, capsys):
    attest.main([str(release)])
    first = {name: (release / name).read_bytes() for name in (signature.STATEMENT, signature.BOM)}
    attest.main([str(release)])
    assert {name: (release / name).read_bytes() for name in first} == first
    assert "not signed" in capsys.readouterr().out


def test_the_statement_is_about_every_file_and_every_limit(release):
    attest.main([str(release)])
    statement = json.loads((release / signature.STATEMENT).read_text())
    subjects = {subject["name"]: subject["digest"]["sha256"] for subject in statement["subject"]}
    found = {name: entry["sha256"] for name, entry in describe_files(release).items()}
    assert subjects == {name: digest for name, digest in found.items() if name != signature.STATEMENT}
    variants = json.loads((release / "manifest.json").read_text())["variants"]
    assert statement["predicate"]["result"] == "PASSED"
    assert len(statement["predicate"]["passedTests"]) == sum(
        len(facts["gate"]["limits"]) for facts in variants.values()
    )
    (manifest,) = statement["predicate"]["configuration"]
    assert manifest["digest"]["sha256"] == sha256_of(release / "manifest.json")


def test_the_bill_of_materials_names_files_and_libraries(release):
    attest.main([str(release)])
    bom = json.loads((release / signature.BOM).read_text())
    hashes = {each["name"]: each["hashes"][0]["content"] for each in bom["components"] if "hashes" in each}
    assert hashes == {
        name: entry["sha256"] for name, entry in describe_files(release).items() if name.startswith("onnx/")
    }
    urls = {each["purl"].partition("@")[0] for each in bom["components"] if each["type"] == "library"}
    assert {"pkg:pypi/torch", "pkg:pypi/transformers", "pkg:pypi/onnx"} <= urls


def test_a_release_that_nobody_signed_says_so(release, capsys, tmp_path):
    status, checks, state = verified(release, capsys)
    assert (status, state, signature.SIGNATURE in checks) == (0, "absent", False)
    verify_release.main([str(release), "--threads", "1"])
    assert "This release is not signed\n" in capsys.readouterr().out
    (tmp_path / "any.pub").touch()
    status, checks, state = verified(release, capsys, "--public-key", str(tmp_path / "any.pub"))
    assert (status, state) == (1, "absent")
    assert checks[signature.SIGNATURE]["seen"] == "the release is not signed"


def test_a_file_that_the_statement_is_about_was_changed(release, capsys):
    attest.main([str(release)])
    assert verified(release, capsys)[1][signature.STATEMENT]["verdict"] == "pass"
    flip(release / signature.BOM)
    status, checks, _ = verified(release, capsys)
    assert status == 1
    check_message(checks[signature.STATEMENT]["seen"])
    (release / signature.STATEMENT).write_text("[]")
    check_message(verified(release, capsys)[1][signature.STATEMENT]["seen"])


def test_an_altered_release_is_not_attested(release):
    flip(release / "tokenizer.json")
    with pytest.raises(UserError) as refused:
        attest.attest(release, None)
    assert "nothing is stated about it: tokenizer.json sha256: " in str(refused.value)
    (release / "tokenizer.json").unlink()
    with raises(UserError):
        attest.attest(release, None)
    assert not (release / signature.STATEMENT).exists()


def test_each_file_is_read_once(release, monkeypatch):
    read = Counter()

    def counted(path: Path) -> str:
        read[path.relative_to(release).as_posix()] += 1
        return sha256_of(path)

    for module in (files, verify_release, attest):
        monkeypatch.setattr(module, "sha256_of", counted)
    attest.attest(release, None)
    once = dict(read)
    assert once == dict.fromkeys(describe_files(release).keys() - {signature.STATEMENT}, 1)


def test_a_file_that_is_altered_while_it_is_attested_is_refused_when_verified(release, monkeypatch, capsys):
    """What is stated is what was checked, whatever lies there later."""

    def alter_first(*given):
        flip(release / "tokenizer.json")
        return make_bom(*given)

    monkeypatch.setattr(attest, "make_bom", alter_first)
    attest.attest(release, None)
    status, checks, _ = verified(release, capsys)
    assert status == 1
    assert checks["tokenizer.json"]["verdict"] == "FAIL"
    assert checks[signature.STATEMENT]["seen"] == "it is about other files: tokenizer.json"


def test_a_key_that_is_not_there_and_a_program_that_is_not_installed(release, monkeypatch, tmp_path):
    (tmp_path / signature.TOOL).touch(mode=0o755)
    monkeypatch.setattr(signature, "OWN_ENVIRONMENT", tmp_path)
    with raises(UserError):
        attest.attest(release, tmp_path / "absent.pem")
    monkeypatch.setattr(signature, "OWN_ENVIRONMENT", None)
    monkeypatch.setenv("PATH", "")
    with raises(UserError):
        attest.attest(release, tmp_path / signature.TOOL)
    assert not (release / signature.STATEMENT).exists()


@pytest.fixture
def noted(tmp_path, monkeypatch) -> Path:
    """A file of the arguments that a stand-in for Model Signing's program was given; it signs and verifies all."""
    program, notes = tmp_path / signature.TOOL, tmp_path / "arguments"
    program.write_text(
        f"#!{sys.executable}\nimport json, pathlib, sys\n"
        f"pathlib.Path({str(notes)!r}).write_text(json.dumps(sys.argv[1:]))\n"
        "if 'sign' in sys.argv: pathlib.Path(sys.argv[sys.argv.index('--signature') + 1]).touch()\n"
    )
    program.chmod(0o755)
    monkeypatch.setattr(signature, "OWN_ENVIRONMENT", tmp_path)
    return notes


def test_a_signature_without_a_key(release, noted, capsys):
    attest.main([str(release), "--keyless"])
    paths = [str(release / name) for name in (signature.SIGNATURE, SNAKEMAKE_MARK)]
    begin = ["--log-level", "ERROR", "sign", "sigstore", str(release), "--use_ambient_credentials"]
    assert json.loads(noted.read_text()) == [*begin, "--signature", paths[0], "--ignore-paths", paths[1]]
    assert (release / signature.STATEMENT).is_file()
    assert "not signed" not in capsys.readouterr().out
    who = ("--identity", "someone@example.com", "--identity-provider", "https://accounts.example.com")
    status, checks, state = verified(release, capsys, *who)
    assert (status, state) == (0, "verified")
    assert checks[signature.SIGNATURE]["seen"] == "by someone@example.com, says https://accounts.example.com"
    begin = ["--log-level", "ERROR", "verify", "sigstore", str(release), "--signature", paths[0]]
    expected = ["--identity", "someone@example.com", "--identity_provider", "https://accounts.example.com"]
    assert json.loads(noted.read_text()) == [*begin, *expected]


@pytest.mark.parametrize(
    "options",
    [
        ("--identity", "someone@example.com"),
        ("--identity-provider", "https://accounts.example.com"),
        ("--identity", "a@b.c", "--identity-provider", "https://b.c", "--public-key", "signer.pub"),
    ],
)
def test_half_of_an_identity_and_two_signers_are_refused(options, capsys):
    with pytest.raises(SystemExit) as ended:
        verify_release.main(["release", *options])
    assert ended.value.code == 2
    check_message(capsys.readouterr().err.strip().splitlines()[-1])


@pytest.mark.slow
def test_without_a_network_there_is_no_keyless_signature(release, signing, monkeypatch, tmp_path, capsys):
    """The real program, which finds no server and has nothing in its cache."""
    monkeypatch.setattr(signature, "OWN_ENVIRONMENT", signing / "environment/bin")
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    with raises(UserError):
        attest.attest(release, None, is_keyless=True)
    assert not (release / signature.SIGNATURE).exists()
    (release / signature.SIGNATURE).write_text("{}")
    who = ("--identity", "someone@example.com", "--identity-provider", "https://accounts.example.com")
    status, checks, state = verified(release, capsys, *who)
    assert (status, state) == (1, "refused")
    check_message(checks[signature.SIGNATURE]["seen"])


@pytest.mark.slow
def test_what_attest_wrote_is_published_too(copy_of_finished):
    results = copy_of_finished.folder / "results/stars.v1"
    before = check_release("stars.v1", results)
    attest.main([str(results / "release")])
    assert check_release("stars.v1", results).keys() - before.keys() == {signature.STATEMENT, signature.BOM}
    assert copy_of_finished.planned() == {}  # nothing is made anew
    flip(results / "release" / signature.BOM)
    with raises(UserError):
        check_release("stars.v1", results)


def test_what_model_signing_says_is_told_without_digests():
    said = (
        "Verification failed with error: Signature mismatch: [\"Hash mismatch for 'README.md': Expected "
        "'Digest(algorithm='sha256', digest_value=b'0')', Actual 'Digest(algorithm='sha256', digest_value=b'1')'\"]"
    )
    assert signature.shortened(said) == "Signature mismatch: Hash mismatch for 'README.md'"
    said = """Verification failed with error: Signature mismatch: ["Extra files found in model 'm': x"]"""
    assert signature.shortened(said) == "Signature mismatch: Extra files found in model 'm': x"
    said = "Signing failed with error: Failed to refresh TUF metadata"
    assert signature.shortened(said) == "Sigstore's servers cannot be reached: Failed to refresh TUF metadata"
    assert len(signature.shortened("x" * 999)) == signature.LONGEST_REASON


@pytest.mark.slow
def test_a_signed_release_is_verified_elsewhere(signed, signing, capsys):
    status, checks, state = verified(signed, capsys, "--public-key", str(signing / "signer.pub"))
    assert (status, state) == (0, "verified")
    assert checks[signature.SIGNATURE]["verdict"] == "pass"
    assert verified(signed, capsys)[0::2] == (0, "not checked")
    # With the public program of Model Signing alone, as somebody without onnxproof does it.
    tool = [str(signing / "environment/bin" / signature.TOOL), "verify", "key", str(signed)]
    options = ["--signature", str(signed / signature.SIGNATURE), "--public_key", str(signing / "signer.pub")]
    run = subprocess.run([*tool, *options], capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 0, run.stderr


@pytest.mark.slow
def test_a_release_that_is_in_git_still_verifies(signed, signing, capsys):
    (signed / ".gitattributes").write_text("*.onnx filter=lfs\n")  # as the Hub adds it
    assert verified(signed, capsys, "--public-key", str(signing / "signer.pub"))[0::2] == (0, "verified")


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_one_flipped_bit_in_a_file_of_any_kind_is_refused(signed, signing, capsys, name):
    flip(signed / name)
    assert signature.verify_signature(signed, signing / "signer.pub") is not None
    status, _, state = verified(signed, capsys, "--public-key", str(signing / "signer.pub"))
    assert status in (1, 2)  # 2: the manifest cannot even be read
    assert state in ("refused", "not read")


@pytest.mark.slow
def test_another_key_a_missing_file_and_one_too_many_are_refused(signed, signing, capsys):
    assert verified(signed, capsys, "--public-key", str(signing / "other.pub"))[0::2] == (1, "refused")
    extra = signed / "onnx/extra.onnx"
    extra.touch()
    assert verified(signed, capsys, "--public-key", str(signing / "signer.pub"))[0::2] == (1, "refused")
    extra.unlink()
    (signed / "config.json").unlink()
    assert verified(signed, capsys, "--public-key", str(signing / "signer.pub"))[0::2] == (1, "refused")


@pytest.mark.slow
def test_whoever_writes_all_checksums_anew_cannot_sign(signed, signing, capsys):
    (signed / "README.md").write_text("another card")
    for name in (signature.STATEMENT, signature.BOM, "SHA256SUMS"):
        (signed / name).unlink()
    manifest = json.loads((signed / "manifest.json").read_text())
    manifest["files"]["README.md"] = describe_files(signed)["README.md"]
    (signed / "manifest.json").write_text(json.dumps(manifest))
    sums = {name: entry["sha256"] for name, entry in describe_files(signed).items() if name != signature.SIGNATURE}
    (signed / "SHA256SUMS").write_text("".join(f"{digest}  {name}\n" for name, digest in sums.items()))
    assert verified(signed, capsys)[1]["files"]["verdict"] == "pass"
    status, checks, state = verified(signed, capsys, "--public-key", str(signing / "signer.pub"))
    assert (status, state) == (1, "refused")
    assert not [check for check in checks.values() if check["what"].startswith("raw inputs: ")]


@pytest.mark.slow
def test_a_key_that_cannot_sign_leaves_no_signature(release, signing, monkeypatch):
    monkeypatch.setattr(signature, "OWN_ENVIRONMENT", signing / "environment/bin")
    with pytest.raises(UserError) as refused:
        attest.attest(release, signing / "signer.pub")
    assert "not signed with" in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not (release / signature.SIGNATURE).exists()


@pytest.mark.slow
def test_in_toto_reads_the_statement(release, signing):
    attest.main([str(release)])
    text = (release / signature.STATEMENT).read_text()
    command = [str(signing / "environment/bin/python"), "-c", CHECK_STATEMENT]
    run = subprocess.run(command, input=text, capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 0, run.stderr
    statement = json.loads(text)
    passed = len(statement["predicate"]["passedTests"])
    assert run.stdout.split() == ["PASSED", str(len(statement["subject"])), str(passed), statement["predicateType"]]


@pytest.mark.slow
def test_the_bill_of_materials_is_what_the_schema_of_cyclonedx_says(release, tmp_path_factory):
    python = python_with(CYCLONEDX, tmp_path_factory)
    attest.main([str(release)])
    text = (release / signature.BOM).read_text()
    run = subprocess.run(
        [str(python), "-c", CHECK_BOM], input=text, capture_output=True, text=True, timeout=60, check=False
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines() == ["valid", "invalid"]
