"""Two workers under TLS and tokens: each follows the files, none shows a secret, and the metrics ask for a token."""

import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from click.testing import CliRunner

from anther import CallFailed, Client
from service.commands.token import token as token_command
from tests.authority import Authority

PATIENCE_S = 60
OURS, OTHERS = Authority("ours"), Authority("others")
CONNECTIONS = 8  # new ones, so that each of the two workers gets some


def made(tokens: Path, name: str, *options: str) -> str:
    done = CliRunner().invoke(token_command, ["new", name, "--tokens", str(tokens), *options])
    return done.stdout.strip()


def revoke(tokens: Path, name: str) -> None:
    assert CliRunner().invoke(token_command, ["revoke", name, "--tokens", str(tokens)]).exit_code == 0


def ends(target: str, ca: Path, token: str) -> set[str]:
    """The codes of calls over several new connections."""
    codes = set()
    for _ in range(CONNECTIONS):
        with Client(target, PATIENCE_S, tls=ca, token=token) as client:
            try:
                client.list_models()
                codes.add("OK")
            except CallFailed as failed:
                codes.add(failed.code)
    return codes


def scrape(operations: str, token: str) -> tuple[int, str]:
    request = urllib.request.Request(f"{operations}/metrics", headers={"Authorization": f"Bearer {token}"})
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, ""


def test_each_worker_follows_tokens_and_certificates_and_nothing_secret_is_shown(
    start_server: Callable[..., Any], tmp_path: Path, eventually: Callable[..., None]
) -> None:
    tokens, ca = tmp_path / "tokens.json", tmp_path / "ca.pem"
    shop, scraper = made(tokens, "shop"), made(tokens, "scraper", "--scope", "metrics")
    issued = OURS.issue()
    certificate, key = issued.write(tmp_path / "server")
    ca.write_bytes(OURS.pem)
    server = start_server(
        "--workers", "2", "--host", "127.0.0.1", "--tokens", str(tokens), "--ops-access", "tokens",
        "--tls-cert", str(certificate), "--tls-key", str(key),
    )  # fmt: skip

    assert ends(server.target, ca, shop) == {"OK"}
    assert ends(server.target, ca, "wrong") == {"UNAUTHENTICATED"}
    host, port = server.target.split(":")
    with socket.create_connection((host, int(port)), PATIENCE_S) as stranger:
        stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert stranger.recv(100) == b""
    assert "handshake" not in server.errors.read_text().lower(), "a line of the log for each stranger"
    assert [scrape(server.operations, each)[0] for each in (shop, scraper, "")] == [403, 200, 401]
    page = scrape(server.operations, scraper)[1]
    assert f'anther_caller_requests_total{{caller="shop",code="OK"}} {CONNECTIONS}.0' in page
    assert 'anther_identity_files_in_use{files="certificates"} 1.0' in page
    assert 'anther_tls_certificate_expiry_timestamp_seconds{certificate="server"} ' in page

    OTHERS.issue().write(tmp_path / "server")
    ca.write_bytes(OTHERS.pem)
    eventually(lambda: ends(server.target, ca, shop) == {"OK"})

    late = made(tokens, "late")
    revoke(tokens, "shop")
    eventually(lambda: ends(server.target, ca, late) == {"OK"})
    eventually(lambda: ends(server.target, ca, shop) == {"UNAUTHENTICATED"})

    tokens.write_text("{")
    eventually(lambda: 'anther_identity_files_in_use{files="tokens"} 0.0' in scrape(server.operations, scraper)[1])
    assert ends(server.target, ca, late) == {"OK"}

    processes = [psutil.Process(server.process.pid), *psutil.Process(server.process.pid).children(recursive=True)]
    shown = [server.errors.read_text(), page, *(" ".join(process.cmdline()) for process in processes)]
    secrets = [shop, scraper, late, issued.key.decode().splitlines()[1]]
    assert not [secret for secret in secrets if any(secret in text for text in shown)]
    assert server.stop() == 0


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_file_that_is_wrong_at_the_start_is_one_line(models: Path, tmp_path: Path, workers: str) -> None:
    tokens = tmp_path / "tokens.json"
    tokens.write_text('{"schema": 1, "tokens": [{"name": "shop", "sha256": "swordfish"}]}')
    command = [sys.executable, "-m", "anther", "serve", "--models", str(models), "--grpc-port", "0", "--ops-port", "0"]
    done = subprocess.run(
        [*command, "--workers", workers, "--tokens", str(tokens)],
        capture_output=True, text=True, check=False, timeout=PATIENCE_S,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    last = done.stderr.splitlines()[-1]
    assert last.startswith("anther: the tokens in ")
    assert "tokens[0] 'shop': 'sha256' should be 64 hexadecimal digits" in last
    assert "swordfish" not in done.stderr
