"""What can go wrong in the service, beside what `bundle.errors` knows; no wire format here.

AntherError
└── ServiceError
    ├── InvalidArgument       a request that makes no sense
    ├── Unauthenticated       no token, or none that is known here
    ├── PermissionDenied      a token that is not for this
    ├── QuotaExceeded         more than a token grants; try again after `retry_after_s`
    ├── TokensInvalid         a file of tokens that cannot be used
    ├── KeysInvalid           an issuer's keys that cannot be used
    ├── CertificatesInvalid   a certificate, a key or authorities that cannot be used
    ├── QueueFull             refused at once; try again after `retry_after_s`
    ├── TooManyCalls          a caller, or all of them, have as many calls in progress as there may be
    ├── ArrivalsFull          no room for another message on its way in
    ├── ArrivedTooSlowly      a message whose last byte did not come in time
    ├── StreamSilent          a stream that gave its place to others, or sent nothing for too long
    ├── DeadlineExpired       the caller's time was up before the work began
    ├── Draining              the server is going away
    ├── DecoderUnavailable    no process for an image that takes long to decode
    ├── NoModelReady          no model passed its checks
    ├── NoEvidence            a model that cannot explain its answers
    ├── CanaryNotFound        a canary was asked for where there is none
    ├── ControlDisabled       clients may not load and unload models here
    ├── OriginRefused         a browser's page of another origin would load or unload a model
    ├── NotOffered            a part of a protocol that this server does not have
    ├── UnknownPath           there is nothing at that path of the HTTP port
    ├── MethodNotAllowed      what is at that path is not asked for with that method
    ├── RequestMalformed      bytes that are no HTTP request
    ├── HeadersTooLarge       an HTTP request whose headers are refused unread
    ├── RequestTooLarge       an HTTP request whose body is larger than any that could be answered
    ├── EncodingRefused       an HTTP request whose body is packed in a way that is not undone here
    ├── DeviceUnavailable     the asked-for device cannot be used
    ├── RuntimeMissing        no ONNX Runtime is installed
    ├── TracingMissing        a collector is named and OpenTelemetry is not installed
    ├── RuntimeConflict       two ONNX Runtime distributions are installed
    ├── TrustUnusable         the keys or certificates that signatures are held against
    ├── AttestationRefused    a statement that does not speak of this version, or not with a known voice
    ├── PortUnavailable       an address that cannot be listened on
    └── WorkerFailed          one of several serving processes did not start
"""

from pathlib import Path

from anther.errors import AntherError

_SHOWN_LENGTH = 120  # of what a client sent; the edge clips longer sentences


class ServiceError(AntherError):
    """Root of the service's own errors. `retry_after_s` is set where trying again later helps."""

    retry_after_s: float | None = None


class InvalidArgument(ServiceError):
    def __init__(self, field: str, value: object, expected: str) -> None:
        if isinstance(value, str) and len(value) > _SHOWN_LENGTH:
            value = f"{value[:_SHOWN_LENGTH]}… ({len(value):,} characters)"
        super().__init__(f"'{field}' is {value!r}; expected {expected}", field=field, value=value, expected=expected)


class Unauthenticated(ServiceError):
    def __init__(self, how: str) -> None:
        """`how` never has the token in it."""
        super().__init__(f"this server asks for a token; {how}")


class PermissionDenied(ServiceError):
    def __init__(self, caller: str, what: str) -> None:
        super().__init__(f"the token '{caller}' is not for {what}", caller=caller, missing=what)


class QuotaExceeded(ServiceError):
    retry_after_s: float

    def __init__(self, caller: str, quota: str, retry_after_s: float) -> None:
        super().__init__(
            f"the token '{caller}' grants {quota}; try again in {retry_after_s:.2f} s", caller=caller, quota=quota
        )
        self.retry_after_s = retry_after_s


class TokensInvalid(ServiceError):
    """Says which entry and which field, and never what stands there: it may be a secret in the wrong place."""

    def __init__(self, path: Path, where: str, why: str) -> None:
        super().__init__(f"the tokens in {path} cannot be used: {where}: {why}", path=path, where=where)


class KeysInvalid(ServiceError):
    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"the issuer's keys in {path} cannot be used: {why}", path=path)


class CertificatesInvalid(ServiceError):
    """Says which file and what is wrong, and never what the file holds."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"the TLS file {path} cannot be used: {why}", path=path)


class QueueFull(ServiceError):
    retry_after_s: float

    def __init__(self, found: int, limit: int, unit: str, retry_after_s: float) -> None:
        super().__init__(
            f"the queue is full ({found:,} of {limit:,} {unit}); try again in {retry_after_s:.2f} s",
            found=found,
            limit=limit,
            unit=unit,
        )
        self.retry_after_s = retry_after_s


class TooManyCalls(ServiceError):
    retry_after_s: float

    def __init__(self, found: int, limit: int, whose: str, retry_after_s: float) -> None:
        super().__init__(
            f"{whose} {found:,} calls in progress, of at most {limit:,}; try again in {retry_after_s:.2f} s",
            found=found,
            limit=limit,
        )
        self.retry_after_s = retry_after_s


class ArrivalsFull(ServiceError):
    retry_after_s: float

    def __init__(self, found: int, limit: int, retry_after_s: float) -> None:
        super().__init__(
            f"messages on their way in hold {found:,} of {limit:,} bytes; try again in {retry_after_s:.2f} s",
            found=found,
            limit=limit,
        )
        self.retry_after_s = retry_after_s


class ArrivedTooSlowly(ServiceError):
    def __init__(self, limit_s: float) -> None:
        super().__init__(f"the message did not arrive within {limit_s:g} s", limit_s=f"{limit_s:g}")


class StreamSilent(ServiceError):
    def __init__(self, reason: str) -> None:
        super().__init__(f"the stream waited too long for its next request ({reason}); open another", reason=reason)


class DeadlineExpired(ServiceError):
    def __init__(self, waited_s: float) -> None:
        super().__init__(
            f"the deadline passed, {waited_s:.3f} s after the request was queued", waited_s=f"{waited_s:.3f}"
        )


class Draining(ServiceError):
    def __init__(self) -> None:
        super().__init__("the server is shutting down; ask another one")


class DecoderUnavailable(ServiceError):
    def __init__(self, reason: str) -> None:
        super().__init__(
            f"no process could be started for an image that takes long to decode ({reason}); try again, or send a "
            "smaller image",
            reason=reason,
        )


class NoModelReady(ServiceError):
    def __init__(self, folder: object, reasons: str, embedded: Path | None = None, *, unsigned: bool = False) -> None:
        """`embedded` is the folder that would serve if `folder` were not there.

        Where versions are `unsigned`, the reasons say what to do.
        """
        other = f"; ./models goes before the embedded model, which --models {embedded} serves" if embedded else ""
        super().__init__(
            f"no model in {folder} can serve ({reasons})"
            + ("" if unsigned else f"; train one with `anther retrain` or name another folder with --models{other}"),
            folder=folder,
            reasons=reasons,
        )


class CanaryNotFound(ServiceError):
    def __init__(self, model: str, stable: int) -> None:
        super().__init__(
            f"model '{model}' has no canary; its stable version is {stable}: leave the label out, or ask for 'stable'",
            model=model,
            stable=stable,
        )


class NoEvidence(ServiceError):
    def __init__(self, model: str, version: int) -> None:
        super().__init__(
            f"{model}/{version} gives no evidence maps, so its answers cannot be explained; ask a version whose "
            "manifest says 'evidence': true",
            model=model,
            version=version,
        )


class ControlDisabled(ServiceError):
    def __init__(self, call: str) -> None:
        super().__init__(
            f"{call} is switched off: clients load and unload models only where the server runs with --control",
            call=call,
        )


class OriginRefused(ServiceError):
    """Browsers send such a request on behalf of any page, and name the page's origin in it."""

    def __init__(self, call: str, origin: str) -> None:
        super().__init__(
            f"{call} is not for pages of {origin!r}; the server names origins whose pages may with --cors", call=call
        )


class NotOffered(ServiceError):
    def __init__(self, call: str, what: str, instead: str) -> None:
        super().__init__(f"{call} is not offered: this server has no {what}; {instead}", call=call)


class UnknownPath(ServiceError):
    def __init__(self, path: str) -> None:
        super().__init__(f"there is nothing at {path!r}; /openapi.json lists the paths", path=path)


class MethodNotAllowed(ServiceError):
    def __init__(self, method: str, allowed: str) -> None:
        super().__init__(f"the method {method} is not allowed here; allowed: {allowed}", method=method, allowed=allowed)


class RequestMalformed(ServiceError):
    def __init__(self) -> None:
        super().__init__("the request is no HTTP/1.1 request")


class HeadersTooLarge(ServiceError):
    def __init__(self, limit: int, most: int) -> None:
        super().__init__(
            f"a request's first line and headers may have {limit:,} bytes and {most} headers", limit=limit, most=most
        )


class RequestTooLarge(ServiceError):
    def __init__(self, limit: int) -> None:
        super().__init__(f"the request's body is larger than {limit:,} bytes", limit=limit)


class EncodingRefused(ServiceError):
    def __init__(self, encoding: str, offered: str) -> None:
        super().__init__(
            f"the request's Content-Encoding is {encoding!r}; expected {offered}, or none", encoding=encoding
        )


class DeviceUnavailable(ServiceError):
    def __init__(self, device: str, found: str) -> None:
        super().__init__(
            f"--device {device} was asked for, but the session runs on {found}; install the GPU runtime and driver, "
            "or use --device auto or cpu",
            device=device,
            found=found,
        )


class RuntimeMissing(ServiceError):
    def __init__(self) -> None:
        super().__init__("ONNX Runtime is not installed; run `pip install 'anther[cpu]'` or `... 'anther[gpu]'`")


class TracingMissing(ServiceError):
    def __init__(self, module: str) -> None:
        super().__init__(
            f"--otlp-endpoint needs OpenTelemetry ('{module}' is not installed); run `pip install 'anther[tracing]'`",
            module=module,
        )


class RuntimeConflict(ServiceError):
    def __init__(self, installed: str) -> None:
        super().__init__(
            f"{installed} are installed together and overwrite each other; run "
            "`pip uninstall onnxruntime onnxruntime-gpu` and then install one of anther[cpu] and anther[gpu]",
            installed=installed,
        )


class TrustUnusable(ServiceError):
    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(
            f"{path} cannot be trusted: {reason}; give a PEM file of certificates, or of public keys for ECDSA on "
            "P-256, P-384 or P-521",
            file=path.name,
            reason=reason,
        )


class AttestationRefused(ServiceError):
    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"attestation {path} is refused: {reason}", file=path.name, reason=reason)


class PortUnavailable(ServiceError):
    def __init__(self, address: str, reason: str, option: str) -> None:
        super().__init__(
            f"cannot listen on {address} ({reason}); choose another port with {option} or address with --host",
            address=address,
            reason=reason,
        )


class WorkerFailed(ServiceError):
    """`reason` is the worker's own sentence, or how it ended where it said none."""

    def __init__(self, slot: int, reason: str) -> None:
        super().__init__(reason, worker=slot)
