"""Calls in progress: who may make them, and the record of how each request ended, alone or in a stream."""

import asyncio
import dataclasses
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal

from anther.errors import AntherError, reason_of
from bundle.errors import BundleRefused, ModelNotFound, PolicyNotWritable
from service.core.call import Call, Caller, Trace
from service.core.recorder import End, Recorder
from service.edge.failures import failure_of
from service.errors import DeadlineExpired, InvalidArgument, PermissionDenied, QuotaExceeded
from service.identity.access import Access
from service.identity.tokens import Scope
from service.versions.loader import LiveModel
from service.versions.registry import Registry

log = logging.getLogger(__name__)

_QUIET_S, _MAX_REFUSAL_S = 0.5, 5.0  # a port closes after so long without a call, and after so long anyway
SAME_MOMENT_S = 0.05  # a client ends a call at its deadline by its own clock, which may be ahead of the server's
INFERENCES = frozenset({"Classify", "ClassifyStream", "Explain", "ModelInfer", "ModelStreamInfer"})

# What a token must have for each method of every protocol: a scope; "any" is every token; "free" methods need none, as
# probes have none. A method that is not here needs the scope that goes furthest.
SCOPES: dict[str, Scope | Literal["any", "free"]] = {
    "Classify": "classify",
    "ClassifyStream": "classify",
    "ModelInfer": "classify",  # with the scope 'explain' where it asks for evidence
    "ModelStreamInfer": "classify",
    "Explain": "explain",
    "ListModels": "models",
    "GetModel": "models",
    "ModelMetadata": "models",
    "ModelConfig": "models",
    "ModelStatistics": "models",
    "RepositoryIndex": "models",
    "RepositoryModelLoad": "control",
    "RepositoryModelUnload": "control",
    "ServerLive": "free",
    "ServerReady": "free",
    "ModelReady": "free",
    "OpenApi": "free",
    "ServerMetadata": "any",
    "ServerReflectionInfo": "any",
    "SystemSharedMemoryStatus": "any",  # this and what follows is refused to everybody
    "SystemSharedMemoryRegister": "any",
    "SystemSharedMemoryUnregister": "any",
    "CudaSharedMemoryStatus": "any",
    "CudaSharedMemoryRegister": "any",
    "CudaSharedMemoryUnregister": "any",
    "TraceSetting": "any",
    "LogSettings": "any",
}

_TICK_S = 0.25  # a stream that waits for its quota looks so often whether the server stops
_MODEL_FIELDS = ("model", "model_name", "name")  # in anther.v1, and twice in the Open Inference Protocol

Resolve = Callable[[Any], LiveModel | None]
"""The version that answers a request; None for a request that asks for no model. Raises what `Classifier.find` does."""

Answer = Callable[..., Awaitable[Any]]
"""From a request, the version that answers it, and its call, to the response.

A request of a stream comes with an event, too: see `service.core.streams.Answer`.
"""

BeginTrace = Callable[[str, Call], Trace]
"""A span for a request, from its method's name and its call."""


@dataclass(frozen=True, slots=True)
class Weight:
    """What a request counts for: its images, and whether it asks for evidence."""

    images: int = 1
    evidence: bool = False


Weigh = Callable[[Any], Weight]
"""The weight of a request for inference."""


def one_image(request: Any) -> Weight:  # noqa: ARG001 - others look at it
    return Weight()


@dataclass(frozen=True, slots=True)
class Method:
    """One method of a service.

    A `streamed` request is one of many in a call; an error of the kind `ends_stream` ends all of them. `weigh` is asked
    for a request's weight where the method is one of the `INFERENCES`.
    """

    name: str
    resolve: Resolve
    answer: Answer
    streamed: bool = False
    ends_stream: type[Exception] | None = None
    weigh: Weigh = one_image


class Calls:
    """`begin_trace` begins a span for each request; None where nobody traces. Without an `access` everybody may make
    every call.
    """

    def __init__(
        self,
        recorder: Recorder,
        registry: Registry,
        begin_trace: BeginTrace | None = None,
        access: Access | None = None,
    ) -> None:
        self._recorder = recorder
        self._registry = registry
        self._begin_trace = begin_trace
        self._access = access or Access()
        self._running = 0
        self.last = 0.0  # when a call last came or a stream last answered, in seconds of `time.monotonic`
        self.idle = asyncio.Event()  # set while no call is in progress
        self.idle.set()

    @property
    def traced(self) -> bool:
        """Whether a call's header `traceparent` is wanted."""
        return self._begin_trace is not None

    def admit(self, name: str, call: Call, authorization: str | None) -> Call:
        """The call of the method `name`, with the caller whose token the header has.

        Raises `Unauthenticated` and `PermissionDenied`, and has then recorded it.
        """
        started, needed = time.perf_counter(), SCOPES.get(name, "control")
        if needed == "free" or self._access.open:
            return call
        try:
            call = dataclasses.replace(call, caller=self._access.identify(authorization, call.caller))
            if needed != "any":
                self._access.check_scope(call.caller, needed)
        except AntherError as exc:
            self.refused(name, exc, call, started)
            raise
        return call

    def begin(self, name: str, call: Call) -> None:
        """A call that was admitted is in progress until `end`. Raises `QuotaExceeded`, and has then recorded it."""
        self.last = time.monotonic()
        try:
            self._access.enter(call.caller)
        except AntherError as exc:
            self.refused(name, exc, call, time.perf_counter())
            raise
        self._running += 1
        self.idle.clear()

    def end(self, call: Call) -> None:
        self._access.leave(call.caller)
        self._running -= 1
        if self._running == 0:
            self.idle.set()

    async def quiet(self, latest: float) -> None:
        """Wait until no calls come. Meanwhile the draining classifier refuses them with UNAVAILABLE.

        A call that arrives while its port closes ends without a reason, after which no client asks another server.
        """
        latest = min(latest, time.monotonic() + _MAX_REFUSAL_S)
        while (now := time.monotonic()) < min(latest, self.last + _QUIET_S):
            await asyncio.sleep(min(latest, self.last + _QUIET_S) - now)

    async def run(self, method: Method, request: Any, call: Call, *placed: asyncio.Event) -> Any:
        """The response. Records how the request ended, and raises what ended it."""
        started, model, code, reason = time.perf_counter(), None, "OK", ""
        if self._begin_trace is not None:
            call = dataclasses.replace(call, trace=self._begin_trace(method.name, call))
        try:
            try:
                model = self._resolved(method, request, call)
                await self._charge(method, request, call, patient=bool(placed))
            except AntherError:
                model = model or self._registry.named(_model_of(request))
                raise
            return await method.answer(request, model, call, *placed)
        except asyncio.CancelledError:
            code = departure(call.deadline)
            reason = "" if method.streamed else _departed(code)  # a stream that ends early has one reason
            raise
        except Exception as exc:
            failure = failure_of(exc)
            told_by_stream = method.ends_stream is not None and isinstance(exc, method.ends_stream)
            code, reason = failure.code, "" if told_by_stream else failure.reason
            _log_unforeseen(exc)
            if isinstance(exc, ModelNotFound) and call.caller.models is not None:  # it names models of others
                raise self._seen_by(call.caller, exc) from exc
            raise
        finally:
            seconds = time.perf_counter() - started
            end = End(call, model, method.name, code, seconds, reason, method.name in INFERENCES)
            self._recorder.ended(end)
            if call.trace is not None:
                call.trace.ended(end.where, code, reason)

    def _resolved(self, method: Method, request: Any, call: Call) -> LiveModel | None:
        """Raises `PermissionDenied` before anything that tells which models there are."""
        if call.caller.models is None:
            return method.resolve(request)
        if named := _model_of(request):
            self._access.check_model(call.caller, named)
            return method.resolve(request)
        own = ", ".join(sorted(call.caller.models))
        try:
            model = method.resolve(request)
        except (InvalidArgument, ModelNotFound) as exc:  # it names models of others
            if isinstance(exc, InvalidArgument) and exc.facts["field"] != "model":
                raise
            raise InvalidArgument("model", "", f"one of {own}") from exc
        if model is not None and not call.caller.may_ask(model.name):
            raise PermissionDenied(call.caller.name, f"the model that answers where none is named; name one of: {own}")
        return model

    def _seen_by(self, caller: Caller, error: ModelNotFound) -> ModelNotFound:
        return ModelNotFound(
            error.facts["model"], [live.name for live in self._registry.live() if caller.may_ask(live.name)]
        )

    async def _charge(self, method: Method, request: Any, call: Call, *, patient: bool) -> None:
        """Charge the caller. Where the quota is used up a patient request waits, so that flow control slows its stream;
        another one is refused.
        """
        inference = method.name in INFERENCES
        weight = method.weigh(request) if inference else Weight(images=0)
        if weight.evidence:
            self._access.check_scope(call.caller, "explain")
        while True:
            try:
                return self._access.charge(call.caller, weight.images)
            except QuotaExceeded as exc:
                if not patient:
                    raise
                wait_s = exc.retry_after_s
            await asyncio.sleep(min(wait_s, _TICK_S))
            method.resolve(request)  # raises `Draining` where the server stopped meanwhile
            if call.deadline is not None and time.monotonic() > call.deadline:
                raise DeadlineExpired(wait_s)

    def refused(self, name: str, error: Exception, call: Call, started: float) -> None:
        """Record a message that is no request of the method `name`."""
        failure = failure_of(error)
        _log_unforeseen(error)
        self._recorder.ended(End(call, None, name, failure.code, time.perf_counter() - started, failure.reason))

    def stream_departed(self, call: Call, started: float) -> None:
        """Record that the caller of a stream, or of a request on its way, left, or that the deadline passed."""
        code = departure(call.deadline)
        self._recorder.ended(End(call, None, None, code, time.perf_counter() - started, _departed(code)))

    def stream_failed(self, error: Exception, call: Call, started: float) -> None:
        """Record that a stream, or what is no request of any method, ended with an error."""
        failure = failure_of(error)
        _log_unforeseen(error)
        self._recorder.ended(End(call, None, None, failure.code, time.perf_counter() - started, failure.reason))


def departure(deadline: float | None) -> str:
    """The code of a call that ended from outside: its deadline passed, or the caller left."""
    late = deadline is not None and time.monotonic() > deadline - SAME_MOMENT_S
    return "DEADLINE_EXCEEDED" if late else "CANCELLED"


def _departed(code: str) -> str:
    """The reason that goes with the code."""
    return reason_of(DeadlineExpired) if code == "DEADLINE_EXCEEDED" else code


def _model_of(request: Any) -> str:
    """The name in a request that asks for a model."""
    return next((getattr(request, field) for field in _MODEL_FIELDS if hasattr(request, field)), "")


def _log_unforeseen(error: Exception) -> None:
    """And what an operator must know that the caller is not told."""
    if not isinstance(error, AntherError):
        log.error("a call failed", exc_info=error)
    elif isinstance(error, PolicyNotWritable | BundleRefused):
        log.warning("a call failed: %s", error)
