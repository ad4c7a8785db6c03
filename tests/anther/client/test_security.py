"""Clients under TLS and with a token: both kinds, one call and many; and nothing secret where it could be read."""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from anther import AntherError, AsyncClient, CallFailed, Client, Tls
from anther.client.target import loopback
from anther.commands.classify import classify
from service.commands.token import token as token_command
from tests.authority import Authority

OURS, OTHERS = Authority("ours"), Authority("others")


class Site:
    """A server with TLS for known clients, and a token for it."""

    def __init__(self, start_edge: Callable[..., Any], folder: Path) -> None:
        tokens, self.ca = folder / "tokens.json", folder / "ca.pem"
        self.ca.write_bytes(OURS.pem)
        made = CliRunner().invoke(token_command, ["new", "shop", "--tokens", str(tokens)])
        self.token = made.stdout.strip()
        certificate, key = OURS.issue().write(folder / "server")
        self.own = OURS.issue("client").write(folder / "client")
        self.tls = Tls(self.ca, *self.own)
        self.edge = start_edge(
            tls_cert=str(certificate), tls_key=str(key), tls_client_ca=str(self.ca), tokens=str(tokens)
        )
        self.target = f"127.0.0.1:{self.edge.port}"


@pytest.fixture
def site(start_edge: Callable[..., Any], tmp_path: Path) -> Site:
    return Site(start_edge, tmp_path)


def test_both_clients_ask_under_tls_with_a_token(site: Site, pictures: dict[str, bytes]) -> None:
    images = list(pictures.values())

    async def asynchronous() -> list[str]:
        async with AsyncClient(site.target, tls=site.tls, token=site.token) as client:
            single = await client.classify(images[0])
            return [single.model, *[answer.model async for answer in client.classify_many(images)]]  # type: ignore[union-attr]

    with Client(site.target, tls=site.tls, token=site.token) as client:
        many = [answer.model for answer in client.classify_many(images)]  # type: ignore[union-attr]
        assert [client.classify(images[0]).model, *many] == ["flowers"] * 4
    assert asyncio.run(asynchronous()) == ["flowers"] * 4


def test_a_refusal_says_what_is_missing(site: Site, pictures: dict[str, bytes]) -> None:
    def failure(tls: Any, token: str = "") -> CallFailed:
        with Client(site.target, 20, tls=tls, token=token) as client, pytest.raises(CallFailed) as raised:
            client.classify(pictures["daisy"])
        return raised.value

    assert failure(site.tls).code == "UNAUTHENTICATED"
    assert failure(site.tls, "wrong").code == "UNAUTHENTICATED"
    assert "for a client's certificate (--tls-cert)" in failure(site.ca).message
    assert "may ask for TLS (--tls)" in failure(None).message


def test_a_server_is_believed_by_authority_and_name(start_edge: Any, tmp_path: Path, pictures: Any) -> None:
    (tmp_path / "ca.pem").write_bytes(OURS.pem)
    (tmp_path / "others.pem").write_bytes(OTHERS.pem)
    certificate, key = OURS.issue().write(tmp_path)
    target = f"127.0.0.1:{start_edge(tls_cert=str(certificate), tls_key=str(key)).port}"
    for tls, why in (
        (str(tmp_path / "others.pem"), "is not trusted: it is of no authority that is believed"),
        (True, "is not trusted: it is of no authority that is believed"),
        (Tls(tmp_path / "ca.pem", server_name="elsewhere.example"), "is for another name"),
    ):
        with Client(target, 20, tls=tls) as client, pytest.raises(CallFailed) as raised:
            client.classify(pictures["daisy"])
        assert raised.value.message.startswith(f"the certificate of the server at {target} {why}")
    with Client(target, tls=Tls(tmp_path / "ca.pem", server_name="localhost")) as client:
        assert client.classify(pictures["daisy"]).model == "flowers"


def test_a_server_without_tls_is_told_of(start_edge: Any, pictures: Any) -> None:
    target = f"127.0.0.1:{start_edge().port}"
    with Client(target, 20, tls=True) as client, pytest.raises(CallFailed, match="the one there speaks no TLS"):
        client.classify(pictures["daisy"])


@pytest.mark.parametrize(
    "target",
    ["localhost:8001", "127.0.0.1:8001", "127.3.2.1:1", "[::1]:8001", "unix:/run/a", "dns:///localhost:8001",
     "ipv4:127.0.0.1:80"],
)  # fmt: skip
def test_tokens_go_to_this_machine_in_plain_text(target: str) -> None:
    assert loopback(target)
    Client(target, token="t").close()


@pytest.mark.parametrize(
    "target",
    ["models.example:8001", "localhost.example:8001", "127.0.0.1.example:80", "192.0.2.1:8001", "[2001:db8::1]:8001",
     "ipv4:127.0.0.1:80,192.0.2.1:80", "dns://192.0.2.1/localhost:80", "0.0.0.0:8001", "xds:///localhost"],
)  # fmt: skip
@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_tokens_go_elsewhere_under_tls_or_where_that_is_said(target: str, kind: Any) -> None:
    assert not loopback(target)
    with pytest.raises(AntherError, match="would travel unencrypted") as raised:
        kind(target, token="swordfish")
    assert "swordfish" not in str(raised.value)
    if kind is Client:
        Client(target, tls=True, token="swordfish").close()
        Client(target, tls=False, token="swordfish").close()


@pytest.mark.parametrize("token", ["a b", "a\n", "\u00e9", "x" * 9000, "\0"])
def test_a_token_that_is_none_is_not_shown(token: str) -> None:
    with pytest.raises(AntherError, match="printable ASCII") as raised:
        Client(token=token)
    assert token not in str(raised.value)


def test_files_that_are_none_are_named(tmp_path: Path) -> None:
    empty = tmp_path / "empty.pem"
    empty.touch()
    for tls, why in (
        (tmp_path / "missing.pem", "missing.pem: No such file"),
        (empty, "empty.pem: it holds nothing in PEM form"),
        (Tls(certificate=empty), "certificate and key belong together"),
    ):
        with pytest.raises(AntherError, match=why):
            Client(tls=tls)


def test_a_key_of_another_certificate_is_told(tmp_path: Path) -> None:
    certificate, _ = OURS.issue("a").write(tmp_path / "a")
    _, key = OURS.issue("b").write(tmp_path / "b")
    with pytest.raises(AntherError) as raised:
        Client(tls=Tls(certificate=certificate, key=key))
    assert f"the key in {key} is not that of the certificate in {certificate}" in str(raised.value)
    with pytest.raises(AntherError, match="cannot be read"):
        Client(tls=Tls(certificate=key, key=certificate))


def test_the_command_speaks_tls_with_a_token_from_a_file_or_a_variable(
    site: Site, pictures: dict[str, bytes], tmp_path: Path
) -> None:
    photo, file = tmp_path / "photo.png", tmp_path / "token"
    photo.write_bytes(pictures["daisy"])
    file.write_text(f"{site.token}\n")
    certificate, key = map(str, site.own)
    tls = ["--tls-ca", str(site.ca), "--tls-cert", certificate, "--tls-key", key]
    arguments = [str(photo), "--target", site.target, "--json", *tls]
    for more, env in ((["--token-file", str(file)], {}), ([], {"ANTHER_TOKEN": site.token})):
        done = CliRunner(env=env).invoke(classify, [*arguments, *more])
        assert done.exit_code == 0
        assert site.token not in done.output
    refused = CliRunner().invoke(classify, arguments)
    assert refused.exit_code == 1
    assert CliRunner().invoke(classify, [*arguments, "--no-tls"]).exit_code == 2


def test_a_token_stands_in_no_log_error_or_repr(site: Site, pictures: dict[str, bytes], caplog: Any) -> None:
    caplog.set_level(logging.DEBUG)
    with Client(site.target, tls=site.tls, token=site.token) as client:
        client.classify(pictures["daisy"])
        with pytest.raises(CallFailed) as raised:
            client.classify(b"junk")
    with Client(site.target, tls=site.tls, token=site.token + "x") as client, pytest.raises(CallFailed) as unknown:
        client.classify(pictures["daisy"])
    exposed = [caplog.text, repr(raised.value), repr(unknown.value), str(unknown.value.facts), repr(vars(client))]
    assert not [text for text in exposed if site.token in text]
