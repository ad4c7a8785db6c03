"""`anther token`: the token is printed once and kept nowhere; the file is private, whole, and read by the server."""

import json
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from service.commands.token import token
from service.identity.tokens import digest, parse


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tokens.json"


def anther_token(path: Path, *arguments: str) -> Result:
    return CliRunner().invoke(token, [*arguments, "--tokens", str(path)])


def test_a_token_is_printed_once_and_its_digest_kept(path: Path) -> None:
    limits = ["--scope", "classify", "--model", "flowers", "--images-per-second", "20", "--in-flight", "4"]
    made = anther_token(path, "new", "shop", *limits, "--days", "30")
    secret = made.stdout.strip()
    assert made.exit_code == 0
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert secret not in path.read_text()
    (found,) = parse(path.read_bytes(), path)
    assert found.sha256 == digest(secret)
    assert (found.scopes, found.models, found.images_per_second, found.in_flight) == (
        ("classify",),
        ("flowers",),
        20,
        4,
    )
    assert found.expires is not None
    assert abs(found.expires - datetime.now(UTC) - timedelta(days=30)) < timedelta(minutes=5)

    for listed in (anther_token(path, "list"), anther_token(path, "list", "--json")):
        assert "shop" in listed.output
        assert secret not in listed.output
        assert found.sha256 not in listed.output


def test_tokens_come_and_go(path: Path) -> None:
    secrets = {name: anther_token(path, "new", name).stdout.strip() for name in ("shop", "press")}
    path.chmod(0o640)
    assert anther_token(path, "revoke", "shop").exit_code == 0
    (left,) = parse(path.read_bytes(), path)
    assert (left.name, left.sha256) == ("press", digest(secrets["press"]))
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert [each["name"] for each in json.loads(anther_token(path, "list", "--json").output)] == ["press"]


def test_a_bad_name_is_an_error_of_the_name(path: Path) -> None:
    refused = anther_token(path, "new", "bad name")
    assert refused.exit_code == 2
    assert "Invalid value for 'NAME': 'bad name'; expected 1 to 63 of a-z" in refused.output
    assert not path.exists()


def test_what_makes_no_sense_changes_nothing(path: Path) -> None:
    anther_token(path, "new", "shop")
    before = path.read_bytes()
    again, unknown = anther_token(path, "new", "shop"), anther_token(path, "revoke", "nobody")
    assert (again.exit_code, unknown.exit_code) == (2, 2)
    assert "there is a token 'shop'" in again.output
    assert "only shop" in unknown.output
    assert anther_token(path, "new", "a name").exit_code == 2
    assert path.read_bytes() == before


def test_a_link_keeps_leading_to_the_file(path: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.json"
    anther_token(path, "new", "shop")
    link.symlink_to(path)
    anther_token(link, "new", "press")
    assert link.is_symlink()
    assert len(parse(path.read_bytes(), path)) == 2
