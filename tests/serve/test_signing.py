"""Signatures: what is signed verifies, here and by the library alone; anything else is refused."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edgetune.serve import signing
from edgetune.serve.bundle import SIGNATURE_NAME, Bundle
from edgetune.serve.errors import BundleDamaged, BundleError, InputError, MissingDependency
from edgetune.serve.signing import sign_bundle, verify_signature

GOLDEN = Path(__file__).parent.parent / "golden" / "bundle-v1"


def test_without_the_library_the_extra_is_named(monkeypatch, tmp_path):
    folder = shutil.copytree(GOLDEN, tmp_path / "x")
    monkeypatch.setattr(signing, "_PACKAGES", ("no_such_package",))
    with pytest.raises(MissingDependency, match=r"pip install 'edgetune\[sign\]'"):
        sign_bundle(Bundle.open(folder), tmp_path / "key.pem")
    (folder / SIGNATURE_NAME).write_text("{}")
    with pytest.raises(MissingDependency):
        verify_signature(folder, tmp_path / "key.pub")
    assert Bundle.open(folder).strangers() == []


@pytest.fixture(scope="module")
def keys(tmp_path_factory) -> dict[str, Path]:
    """Paths of key files by what they are."""
    pytest.importorskip("model_signing", reason="the extra [sign] is not installed")
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

    folder = tmp_path_factory.mktemp("keys")
    pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8

    def write(name: str, key, encryption=None) -> None:
        plain = encryption or serialization.NoEncryption()
        (folder / f"{name}.pem").write_bytes(key.private_bytes(pem, form, plain))
        public = key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
        (folder / f"{name}.pub").write_bytes(public)

    write("ours", ec.generate_private_key(ec.SECP256R1()))
    write("theirs", ec.generate_private_key(ec.SECP384R1()))
    write("locked", ec.generate_private_key(ec.SECP256R1()), serialization.BestAvailableEncryption(b"secret"))
    write("rsa", rsa.generate_private_key(65537, 2048))
    return {path.name: path for path in folder.iterdir()}


@pytest.fixture
def signed(keys, tmp_path) -> Path:
    folder = shutil.copytree(GOLDEN, tmp_path / "bundle")
    sign_bundle(Bundle.open(folder), keys["ours.pem"])
    return folder


def test_a_signed_bundle_verifies_and_is_a_whole_bundle(keys, signed):
    verify_signature(signed, keys["ours.pub"])
    assert {path.name for path in signed.iterdir()} == {path.name for path in GOLDEN.iterdir()} | {SIGNATURE_NAME}
    assert Bundle.open(signed).strangers() == []
    envelope = json.loads((signed / SIGNATURE_NAME).read_text("utf-8"))
    assert envelope["mediaType"].startswith("application/vnd.dev.sigstore.bundle")
    sign_bundle(Bundle.open(signed), keys["locked.pem"], b"secret")  # takes the place of the older one
    verify_signature(signed, keys["locked.pub"])


def test_the_library_s_own_command_verifies_it(keys, signed):
    command = ["-m", "model_signing", "verify", "key", str(signed), "--public_key", str(keys["ours.pub"])]
    done = subprocess.run(
        [sys.executable, *command, "--signature", str(signed / SIGNATURE_NAME)], capture_output=True, text=True
    )
    assert (done.returncode, "succeeded" in done.stdout) == (0, True), done.stderr


def test_what_was_not_signed_is_refused(keys, signed, tmp_path):
    with pytest.raises(BundleDamaged, match="not what the owner of"):
        verify_signature(signed, keys["theirs.pub"])
    with pytest.raises(BundleError, match="is not signed"):
        verify_signature(GOLDEN, keys["ours.pub"])
    for name, damage in (
        ("report.html", lambda path: path.write_bytes(path.read_bytes() + b" ")),
        ("manifest.json", lambda path: path.write_bytes(path.read_bytes() + b" ")),
        ("golden.json", lambda path: path.unlink()),
        ("more.txt", lambda path: path.write_text("x")),
        (SIGNATURE_NAME, lambda path: path.write_text("{}")),
        (SIGNATURE_NAME, lambda path: path.write_bytes(b"\xff")),
        (SIGNATURE_NAME, lambda path: path.write_bytes(path.read_bytes().replace(b"A", b"B"))),
    ):
        folder = shutil.copytree(signed, tmp_path / "damaged")
        damage(folder / name)
        with pytest.raises(BundleDamaged, match="not what the owner of"):
            verify_signature(folder, keys["ours.pub"])
        shutil.rmtree(folder)


def test_keys_that_cannot_sign_leave_nothing_behind(keys, tmp_path):
    folder = shutil.copytree(GOLDEN, tmp_path / "bundle")
    opened = Bundle.open(folder)
    for key in (keys["ours.pub"], keys["rsa.pem"], keys["locked.pem"], folder / "config.json", tmp_path / "nowhere"):
        with pytest.raises(InputError, match="The key"):
            sign_bundle(opened, key)
    with pytest.raises(InputError, match="The key"):
        sign_bundle(opened, keys["locked.pem"], b"wrong")
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(BundleError, match=r"'notes\.txt'"):
        sign_bundle(opened, keys["ours.pem"])
    assert {path.name for path in folder.iterdir()} == {path.name for path in GOLDEN.iterdir()} | {"notes.txt"}
