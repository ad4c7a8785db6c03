"""What a server with TLS and tokens needs, made in a folder, and what its callers need to reach it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from service.identity.tokens import SCOPES, Token, digest, dumped, generate
from tests.authority import Authority


@dataclass(frozen=True)
class Secured:
    """`authority` is the file that callers trust; `tokens` are those of the callers, by name."""

    certificate: Path
    key: Path
    authority: Path
    tokens_file: Path
    tokens: dict[str, str]

    @property
    def pem(self) -> bytes:
        return self.authority.read_bytes()

    @property
    def tls(self) -> tuple[str, ...]:
        """Options of `anther serve`."""
        return ("--tls-cert", str(self.certificate), "--tls-key", str(self.key))

    @property
    def known(self) -> tuple[str, ...]:
        """Options of `anther serve`."""
        return ("--tokens", str(self.tokens_file))


def secure(folder: Path, names: Sequence[str]) -> Secured:
    """A certificate for localhost, and a token with every scope for each name."""
    authority = Authority("tests")
    certificate, key = authority.issue().write(folder)
    (folder / "ca.pem").write_bytes(authority.pem)
    tokens = {name: generate() for name in names}
    entries = [Token(name, digest(token), SCOPES) for name, token in tokens.items()]
    (folder / "tokens.json").write_bytes(dumped(entries))
    return Secured(certificate, key, folder / "ca.pem", folder / "tokens.json", tokens)
