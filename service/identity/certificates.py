"""The server's certificate and key, and the authorities of its clients' certificates; taken anew when the files change.

What does not fit together, or has expired, is refused whole, and the last good files stay in use.
"""

import os
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from anther import files
from service.errors import CertificatesInvalid

_LARGEST_FILE = 4 * 2**20  # bytes: every authority that a browser knows is a quarter of that
_CURVES = (ec.SECP256R1, ec.SECP384R1)  # gRPC's TLS library has no others for a server
_KEYS = "an RSA key of 2048 bits or more, or an ECDSA key on P-256 or P-384"


@dataclass(frozen=True)
class CertificateFiles:
    """PEM files. `client_ca` holds the authorities of which every client needs a certificate; None asks for none."""

    certificate: Path
    key: Path
    client_ca: Path | None = None


@dataclass(frozen=True, eq=False)
class Pair:
    """What the files held when all of it was right. `context` is for TLS of HTTP; its own library does gRPC's."""

    certificate: bytes
    key: bytes = field(repr=False)
    client_ca: bytes | None
    expires: dict[str, datetime]  # 'server', and 'client_ca' where there is one
    context: ssl.SSLContext


OnChange = Callable[[Pair], None]


class Certificates:
    """`on_change` is called with each pair that comes into use, the first one included.

    Raises `CertificatesInvalid` when it is made, too.
    """

    what = "certificates"

    def __init__(self, paths: CertificateFiles, on_change: OnChange) -> None:
        self._paths, self._on_change = paths, on_change
        self._read = _contents(paths)
        self.current = pair_of(paths, *self._read)
        self.context = _switching(self)
        on_change(self.current)

    def refresh(self) -> bool:
        read = _contents(self._paths)
        if read == self._read:
            return False
        self.current = pair_of(self._paths, *read)
        self._read = read
        self._on_change(self.current)
        return True


def pair_of(paths: CertificateFiles, certificate: bytes, key: bytes, client_ca: bytes | None) -> Pair:
    """Raises `CertificatesInvalid`, with nothing of what the files hold."""
    leaf = _certificates(paths.certificate, certificate)[0]
    _check_key(paths, leaf, key)
    expires = {"server": _unexpired(paths.certificate, leaf)}
    if client_ca is not None and paths.client_ca is not None:
        authorities = _certificates(paths.client_ca, client_ca)
        expires["client_ca"] = min(_unexpired(paths.client_ca, each) for each in authorities)
    return Pair(certificate, key, client_ca, expires, _context(paths, certificate, key, client_ca))


def _contents(paths: CertificateFiles) -> tuple[bytes, bytes, bytes | None]:
    authorities = None if paths.client_ca is None else _bytes(paths.client_ca)
    return _bytes(paths.certificate), _bytes(paths.key), authorities


def _bytes(path: Path) -> bytes:
    """Of a link's target where it is one: mounted secrets are changed by turning a link round."""
    try:
        return files.read_regular(path.resolve(), _LARGEST_FILE)
    except (OSError, ValueError) as exc:
        raise CertificatesInvalid(path, getattr(exc, "strerror", None) or str(exc)) from exc


def _certificates(path: Path, data: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(data)
    except ValueError as exc:
        raise CertificatesInvalid(path, "it holds no whole certificates in PEM form") from exc


def _check_key(paths: CertificateFiles, leaf: x509.Certificate, data: bytes) -> None:
    try:
        key: Any = load_pem_private_key(data, password=None)
    except TypeError as exc:
        raise CertificatesInvalid(paths.key, "the key is encrypted; give it without a passphrase") from exc
    except (ValueError, UnsupportedAlgorithm) as exc:
        raise CertificatesInvalid(paths.key, "it holds no whole private key in PEM form") from exc
    fit = isinstance(key, rsa.RSAPrivateKey) and key.key_size >= 2048
    if not fit and not (isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, _CURVES)):
        raise CertificatesInvalid(paths.key, f"it should hold {_KEYS}")
    if key.public_key() != leaf.public_key():
        raise CertificatesInvalid(paths.key, f"the key is not that of the certificate in {paths.certificate}")


def _unexpired(path: Path, found: x509.Certificate) -> datetime:
    """When it expires."""
    expires = found.not_valid_after_utc
    if expires <= datetime.now(UTC):
        raise CertificatesInvalid(path, f"a certificate in it expired on {expires:%Y-%m-%d %H:%M} UTC")
    return expires


def _context(paths: CertificateFiles, certificate: bytes, key: bytes, client_ca: bytes | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _oldest(client_ca is not None)
    context.set_alpn_protocols(["http/1.1"])
    # Resumed sessions would outlive the authority of the client's certificate.
    context.options |= ssl.OP_NO_TICKET
    context.num_tickets = 0
    try:
        _load(context, certificate + b"\n" + key)
        if client_ca is not None:
            context.load_verify_locations(cadata=client_ca.decode("ascii", "replace"))
            context.verify_mode = ssl.CERT_REQUIRED
    except ssl.SSLError as exc:
        raise CertificatesInvalid(paths.certificate, f"TLS does not take it ({exc.reason})") from exc
    return context


def _oldest(clients_are_known: bool) -> ssl.TLSVersion:
    """Sessions of TLS 1.2 are kept by the listening context, which `ssl` cannot be told not to do; resumed, one would
    outlive the authority of its client's certificate.
    """
    return ssl.TLSVersion.TLSv1_3 if clients_are_known else ssl.TLSVersion.TLSv1_2


def _load(context: ssl.SSLContext, chain_and_key: bytes) -> None:
    """From memory, which `ssl` has no way for: what was checked is what is used, whatever the files hold by now."""
    descriptor = os.memfd_create("anther", os.MFD_CLOEXEC)
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(chain_and_key)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


def _switching(certificates: Certificates) -> ssl.SSLContext:
    """A context for a listening socket: each new connection gets the one of the current pair."""

    def switch(connection: ssl.SSLObject, name: str | None, listening: ssl.SSLContext) -> None:  # noqa: ARG001
        connection.context = certificates.current.context

    pair = certificates.current
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = pair.context.verify_mode
    context.minimum_version = _oldest(context.verify_mode == ssl.CERT_REQUIRED)
    context.options |= ssl.OP_NO_TICKET
    context.num_tickets = 0
    context.set_alpn_protocols(["http/1.1"])
    context.sni_callback = switch
    return context
