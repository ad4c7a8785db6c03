"""How a client makes sure of its server, and shows itself: TLS, a certificate of its own, a token."""

import re
import ssl
from dataclasses import dataclass
from pathlib import Path

import grpc

from anther.client.target import loopback
from anther.errors import AntherError

_MISMATCH = ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH")
_TOKEN = re.compile(r"[!-~]{1,8192}")


@dataclass(frozen=True)
class Tls:
    """PEM files. `ca` holds the authorities that are believed; None is gRPC's list of public ones.

    `certificate` and `key` are the client's own, where the server asks for them. `server_name` is what the server's
    certificate must be for, where that is not the target's host.
    """

    ca: str | Path | None = None
    certificate: str | Path | None = None
    key: str | Path | None = None
    server_name: str = ""


TlsOption = bool | str | Path | Tls | None
"""True for TLS with public authorities, a path for one's own, `Tls` for more; None and False for plain text.

Only False lets a token travel in plain text to another machine.
"""


class TokenExposed(AntherError):
    def __init__(self, target: str) -> None:
        super().__init__(
            f"a token for {target} would travel unencrypted; use TLS (tls=True, --tls), or say that it may "
            "(tls=False, --no-tls)",
            target=target,
        )


class TokenMalformed(AntherError):
    def __init__(self) -> None:
        """Never with the token."""
        super().__init__("the token should be 1 to 8,192 printable ASCII characters without spaces or line ends")


class TlsUnusable(AntherError):
    def __init__(self, what: str, why: str) -> None:
        super().__init__(f"no TLS with {what}: {why}", what=what)


class Security:
    """For one target. Raises `TokenExposed`, `TokenMalformed` and `TlsUnusable`."""

    def __init__(self, target: str, tls: TlsOption, token: str) -> None:
        self.credentials: grpc.ChannelCredentials | None = None
        self.options: list[tuple[str, str]] = []
        if tls is not None and tls is not False:
            found = tls if isinstance(tls, Tls) else Tls(None if tls is True else tls)
            self.credentials = _credentials(found)
            if found.server_name:
                self.options = [("grpc.ssl_target_name_override", found.server_name)]
        if token and not _TOKEN.fullmatch(token):
            raise TokenMalformed
        if token and tls is None and not loopback(target):
            raise TokenExposed(target)
        self.metadata = (("authorization", f"Bearer {token}"),) if token else ()


def _credentials(tls: Tls) -> grpc.ChannelCredentials:
    if (tls.certificate is None) != (tls.key is None):
        raise TlsUnusable("a client's certificate", "certificate and key belong together; give both")
    if tls.certificate is not None and tls.key is not None:
        _check_pair(tls.certificate, tls.key)
    return grpc.ssl_channel_credentials(_pem(tls.ca), _pem(tls.key), _pem(tls.certificate))


def _check_pair(certificate: str | Path, key: str | Path) -> None:
    """Of a key that is not the certificate's gRPC would say that no server answers."""
    _pem(certificate), _pem(key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_ciphers("DEFAULT:@SECLEVEL=0")  # how strong they should be is the server's to say
    try:
        context.load_cert_chain(certificate, key, password=lambda: b"")
    except ssl.SSLError as exc:
        if exc.reason in _MISMATCH:
            why = f"the key in {key} is not that of the certificate in {certificate}"
            raise TlsUnusable("a client's certificate", why) from exc
        raise TlsUnusable("a client's certificate", f"{certificate} and {key} cannot be read") from exc


def _pem(path: str | Path | None) -> bytes | None:
    """GRPC tells nobody what is wrong with a file; of what is none at all this does."""
    if path is None:
        return None
    try:
        data = Path(path).read_bytes()
    except OSError as exc:
        raise TlsUnusable(str(path), exc.strerror or str(exc)) from exc
    if b"-----BEGIN " not in data:
        raise TlsUnusable(str(path), "it holds nothing in PEM form")
    return data
