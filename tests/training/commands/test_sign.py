"""`anther sign`: the reference tool signs a version's every file, and the signature lies beside its folder."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from anther import cli
from bundle.errors import BundleCorrupt, VersionNotFound
from bundle.repository import Repository
from training.errors import SigningFailed

pytest.importorskip("model_signing", reason="the reference tool comes with anther[signing]")


@pytest.fixture
def root(tmp_path: Path, publish_bundle) -> Path:
    publish_bundle(tmp_path / "models")
    return tmp_path / "models"


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "key.pem"
    form, encoding = serialization.PrivateFormat.PKCS8, serialization.Encoding.PEM
    private = ec.generate_private_key(ec.SECP256R1())
    path.write_bytes(private.private_bytes(encoding, form, serialization.NoEncryption()))
    return path


def sign(*words: object) -> Result:
    return CliRunner().invoke(cli.cli, ["sign", *map(str, words)])


@pytest.mark.parametrize("folder", [True, False], ids=["folder", "name"])
def test_every_file_is_signed(root, key, folder) -> None:
    version = (root / "flowers" / "1",) if folder else ("flowers/1", "--models", root)
    assert sign(*version, "--key", key).exit_code == 0
    record = json.loads((root / "flowers" / "1.sig").read_text())
    statement: Any = json.loads(base64.b64decode(record["dsseEnvelope"]["payload"]))
    signed = {each["name"]: each["digest"] for each in statement["predicate"]["resources"]}
    assert signed == Repository(root).open("flowers").digests
    assert statement["subject"][0]["name"] == "1"


def test_what_is_damaged_or_absent_is_not_signed(root, key) -> None:
    (root / "flowers" / "1" / "report.html").write_text("changed")
    assert isinstance(sign("flowers/1", "--models", root, "--key", key).exception, BundleCorrupt)
    assert isinstance(sign("flowers/2", "--models", root, "--key", key).exception, VersionNotFound)
    assert isinstance(sign("flowers", "--models", root, "--key", key).exception, SigningFailed)
    assert list(root.glob("flowers/*.sig")) == []


def test_a_key_that_cannot_sign_is_named(root, tmp_path) -> None:
    (tmp_path / "key.pem").write_text("no key")
    done = sign("flowers/1", "--models", root, "--key", tmp_path / "key.pem")
    assert isinstance(done.exception, SigningFailed)
    assert "is not signed" in str(done.exception)
    assert [path.name for path in (root / "flowers").iterdir()] == ["1"]
