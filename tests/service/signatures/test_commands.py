"""The commands for signed versions: verify a signature, state what this host has proven, read what another stated."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from anther import cli
from bundle.errors import BundleRefused, SignatureInvalid, SignatureMissing
from bundle.repository import Bundle
from service.errors import AttestationRefused
from tests.service.signatures.signer import Signer

Call = Callable[..., Result]


@pytest.fixture
def signer(tmp_path: Path) -> Signer:
    """Who has the keys in the files key.pem and key.pub."""
    signer = Signer()
    (tmp_path / "key.pem").write_bytes(signer.private_pem())
    (tmp_path / "key.pub").write_bytes(signer.public_pem())
    return signer


@pytest.fixture
def call(version: Bundle, tmp_path: Path) -> Call:
    """`call("verify", "flowers/1")`; KEY and PUB stand for the signer's files, ATTESTATION for one of its own."""
    files = {"KEY": "key.pem", "PUB": "key.pub", "ATTESTATION": "attestation.json"}

    def run(command: str, *words: str, ok: bool = True) -> Result:
        words = tuple(str(tmp_path / files[word]) if word in files else word for word in words)
        root = str(version.path.parent.parent)
        result = CliRunner().invoke(cli.cli, ["models", command, "--models", root, *words])
        assert (result.exit_code == 0) == ok, result.output
        return result

    return run


def test_verify_names_who_signed(version, signer, call) -> None:
    signer.sign(version)
    words = "flowers/1", "--signature", "--public-key", "PUB"
    assert "signed                    by key" in call("verify", *words).stdout
    assert json.loads(call("verify", *words, "--json").stdout)["signed_by"].startswith("key ")


def test_verify_refuses_what_a_server_would(version, signer, call) -> None:
    words = "flowers", "--signature", "--certificate-chain", "PUB"
    assert isinstance(call("verify", *words, ok=False).exception, SignatureMissing)
    Signer().sign(version)
    assert isinstance(call("verify", *words, ok=False).exception, SignatureInvalid)
    refused = json.loads(call("verify", *words, "--json", ok=False).stdout)
    assert (refused["ok"], "not signed with key" in refused["reason"]) == (False, True)


@pytest.mark.parametrize("words", [("--signature",), ("--public-key", "PUB", "--certificate-chain", "PUB")])
def test_verify_needs_one_to_trust(call, words) -> None:
    assert call("verify", "flowers", *words, ok=False).exit_code == 2


def test_an_unsigned_version_is_not_pinned_where_the_server_would_refuse_it(signer, call) -> None:
    refused = call("pin", "flowers", "1", "--require-signature", "PUB", ok=False).exception
    assert isinstance(refused, BundleRefused)
    assert "is missing" in str(refused)


def test_a_host_states_what_it_has_proven(version, signer, call) -> None:
    statement = json.loads(call("attest", "flowers").stdout)
    predicate: dict[str, Any] = statement["predicate"]
    assert statement["subject"][0]["name"] == "flowers/1"
    assert predicate["precision"] == "fp32"
    assert predicate["largest_logit_difference"] <= predicate["allowed_logit_difference"]
    assert predicate["host"]["processor"]


@pytest.mark.parametrize("key", [(), ("--key", "KEY")], ids=["plain", "signed"])
def test_what_a_host_stated_is_read(signer, call, key) -> None:
    call("attest", "flowers/1", "--output", "ATTESTATION", *key)
    shown = call("verify", "flowers/1", "--attestation", "ATTESTATION").stdout
    assert "fp32, largest logit difference" in shown
    assert "nobody's signature was asked for" in shown
    trusting = call("verify", "flowers/1", "--attestation", "ATTESTATION", "--public-key", "PUB", ok=bool(key))
    if key:
        assert "signed by key" in trusting.stdout
    else:
        assert isinstance(trusting.exception, AttestationRefused)


def test_a_statement_about_another_version_is_refused(version, call, publish_bundle, tmp_path) -> None:
    call("attest", "flowers/1", "--output", "ATTESTATION")
    publish_bundle(version.path.parent.parent, seed=2)
    refused = call("verify", "flowers/2", "--attestation", "ATTESTATION", ok=False).exception
    assert isinstance(refused, AttestationRefused)
    assert "speaks of flowers/1" in str(refused)
    shutil.copy(version.path / "manifest.json", tmp_path / "attestation.json")
    assert isinstance(
        call("verify", "flowers/1", "--attestation", "ATTESTATION", ok=False).exception, AttestationRefused
    )


def test_a_key_that_cannot_sign_is_named(call, tmp_path) -> None:
    (tmp_path / "key.pem").write_text("no key")
    refused = call("attest", "flowers", "--key", "KEY", ok=False).exception
    assert isinstance(refused, AttestationRefused)
    assert "cannot be signed with this key" in str(refused)
