"""The Python client: send pictures, get ranked classes, and errors with their reason."""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2

from bundle.errors import AntherError
from service.rpc.pb.anther.v1 import classifier_pb2 as pb
from service.rpc.pb.anther.v1.classifier_pb2_grpc import ImageClassifierStub

DEFAULT_TARGET = "localhost:8001"
_LOCAL = ("localhost", "127.", "[::1]")  # never asked for through the `http_proxy` of the environment
_IN_FLIGHT = 8  # enough to keep two to four cores busy without filling a server's queue


@dataclass(frozen=True)
class Prediction:
    label: str
    index: int
    probability: float


@dataclass(frozen=True)
class Classification:
    """Predictions, most probable first; `timings` are seconds per stage as the server measured them."""

    model: str
    version: int
    provider: str
    confident: bool
    predictions: tuple[Prediction, ...]
    timings: dict[str, float]


class CallFailed(AntherError):
    """The server refused or could not be reached: `code` is gRPC's name, `reason` the server's stable one."""

    def __init__(self, code: str, reason: str, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message, code=code, reason=reason)
        self.code, self.reason, self.message, self.retry_after_s = code, reason, message, retry_after_s


class Client:
    """A connection to one server; safe to share between threads.

    >>> with Client("localhost:8001") as client:
    ...     client.classify("photo.jpg").predictions[0].label
    """

    def __init__(self, target: str = DEFAULT_TARGET, timeout_s: float = 30.0) -> None:
        proxied = not target.startswith(_LOCAL)
        self._channel = grpc.insecure_channel(
            target, options=[("grpc.max_send_message_length", -1), ("grpc.enable_http_proxy", int(proxied))]
        )
        self._stub = ImageClassifierStub(self._channel)
        self._target = target
        self._timeout_s = timeout_s

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._channel.close()

    def classify(self, image: bytes | str | Path, model: str = "", version: int = 0, top_k: int = 0) -> Classification:
        """Classify one picture, given as its encoded bytes or as a path. Raises `CallFailed` or `OSError`."""
        return self._result(self._send(image, model, version, top_k))

    def classify_many(
        self, images: Iterable[bytes | str | Path], model: str = "", version: int = 0, top_k: int = 0
    ) -> Iterator[Classification | CallFailed]:
        """Classify pictures with several requests in flight; yields in order, a failed one as its error."""
        pending: deque[Any] = deque()
        for image in images:
            if len(pending) == _IN_FLIGHT:
                yield self._outcome(pending.popleft())
            pending.append(self._try_send(image, model, version, top_k))
        while pending:
            yield self._outcome(pending.popleft())

    def list_models(self) -> list[pb.ModelDescription]:
        """The models in service. Raises `CallFailed`."""
        call = self._stub.ListModels.future(pb.ListModelsRequest(), timeout=self._timeout_s, wait_for_ready=False)
        return list(self._wait(call).models)

    def _send(self, image: bytes | str | Path, model: str, version: int, top_k: int) -> Any:
        data = image if isinstance(image, bytes) else Path(image).read_bytes()
        request = pb.ClassifyRequest(image=data, model=model, version=version, top_k=top_k)
        return self._stub.Classify.future(request, timeout=self._timeout_s)

    def _try_send(self, image: bytes | str | Path, model: str, version: int, top_k: int) -> Any:
        try:
            return self._send(image, model, version, top_k)
        except OSError as exc:
            return CallFailed("INVALID_ARGUMENT", "FILE_UNREADABLE", f"cannot read the file: {exc}")

    def _outcome(self, sent: Any) -> Classification | CallFailed:
        if isinstance(sent, CallFailed):
            return sent
        try:
            return self._result(sent)
        except CallFailed as failed:
            return failed

    def _result(self, call: Any) -> Classification:
        response: pb.ClassifyResponse = self._wait(call)
        timings = response.timings
        return Classification(
            response.model,
            response.version,
            response.execution_provider,
            response.confident,
            tuple(Prediction(found.label, found.index, found.probability) for found in response.predictions),
            {field.name: getattr(timings, field.name) for field in timings.DESCRIPTOR.fields},
        )

    def _wait(self, call: Any) -> Any:
        try:
            return call.result()
        except grpc.RpcError as exc:
            raise _failure(exc, self._target) from exc


def _failure(error: Any, target: str) -> CallFailed:
    details = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin")
    if details is None:  # refused by gRPC itself, before our code
        message = error.details() or ""
        if error.code() is grpc.StatusCode.UNAVAILABLE:
            message = f"no server answers at {target} ({message}); start one with `anther serve`"
        return CallFailed(error.code().name, error.code().name, message)
    return _from_details(error.code().name, status_pb2.Status.FromString(details))


def _from_details(code: str, status: status_pb2.Status) -> CallFailed:
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    retry_after_s = None
    for detail in status.details:
        if detail.Unpack(retry):
            retry_after_s = retry.retry_delay.ToTimedelta().total_seconds()
        detail.Unpack(info)
    return CallFailed(code, info.reason, status.message, retry_after_s)
