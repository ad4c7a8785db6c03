"""The thread that keeps the registry in step with the folder of models, and frees the engines of retired versions.

It rescans when stat shows that the folder has changed, and when it is told to. A thread is enough: ONNX Runtime 1.31.1
releases the interpreter lock while it creates a session (60 ms for MobileNetV2; other threads waited 5 to 15 ms).
"""

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from queue import Empty, SimpleQueue

from anther.backoff import Backoff
from anther.errors import AntherError
from service.engines.engine import Engine
from service.errors import Draining
from service.system import memory
from service.versions import fingerprint
from service.versions.registry import Registry

log = logging.getLogger(__name__)

_REST = 3.0  # times the work between two pauses: p99 rises by 25 % while a version loads, without pauses by 75 %
_MAX_REST_S = 0.2
_MAX_WAIT_S = 60.0  # between attempts to rescan a folder that cannot be read


class _Stop:
    """Ends the thread."""


Inbox = SimpleQueue["Future[None] | Engine | _Stop"]
"""What the thread has to do: rescans that were asked for, engines to free, the end."""


class Throttle:
    """Called between steps: sleeps `rest` times as long as the calling thread has computed since the last call.

    A low priority would not do: a thread that waits for the processor while it holds the interpreter lock makes all
    others wait (see `service.core.shadow_worker`).
    """

    def __init__(
        self,
        rest: float,
        sleep: Callable[[float], None] = time.sleep,
        computed: Callable[[], float] = time.thread_time,
    ) -> None:
        self._rest = rest
        self._sleep = sleep
        self._computed = computed
        self._last = 0.0

    def __call__(self) -> None:
        worked, self._last = self._computed() - self._last, self._computed()
        self._sleep(min(self._rest * worked, _MAX_REST_S))


class Watcher:
    """Rescans the folder every `interval_s` seconds, 0 for never, and whenever `reconcile` is called.

    Engines that are put into `inbox` are freed on the watcher's thread.
    """

    def __init__(self, registry: Registry, interval_s: float, inbox: Inbox | None = None) -> None:
        self._registry = registry
        self._interval_s = interval_s
        self._backoff = Backoff(2 * interval_s, max(_MAX_WAIT_S, interval_s))
        self._due = time.monotonic() + interval_s
        self._inbox = Inbox() if inbox is None else inbox
        self._throttle = Throttle(_REST)
        self._lock = threading.Lock()
        self._closed = False
        self._asked: Future[None] | None = None  # the last by `rescan`
        self._seen: object = None
        self._failure = ""
        self._thread = threading.Thread(target=self._run, name="models")

    def start(self) -> None:
        """What changed since the registry was loaded is taken over at the first rescan."""
        self._thread.start()

    def reconcile(self) -> "Future[None]":
        """Take over what the folder and the policies say now, refused versions included.

        The future raises what is no fault of a bundle; why a version was refused is in `Registry.refused`. Raises
        `Draining` after `close`.
        """
        done: Future[None] = Future()
        with self._lock:
            if self._closed:
                raise Draining
            self._inbox.put(done)
        return done

    def rescan(self) -> None:
        """`reconcile` without an answer: failures are logged, and nothing happens after `close`.

        For one thread. A call does nothing while an earlier one has not begun, since that one will see the same.
        """
        if self._asked is not None and not (self._asked.running() or self._asked.done()):
            return
        with suppress(Draining):
            self._asked = self.reconcile()
            self._asked.add_done_callback(_log_failure)

    def close(self) -> None:
        """Finish the rescans that were asked for, a version that is being loaded included, and end the thread."""
        with self._lock:
            self._closed = True
            self._inbox.put(_Stop())
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        while True:
            item = self._next()
            if isinstance(item, _Stop):
                return
            worked = self._poll() if item is None else True
            if isinstance(item, Future):
                self._answer(item)
            del item  # the last reference to an engine: freeing it on this thread delays no request
            if worked:
                memory.give_back()

    def _next(self) -> "Future[None] | Engine | _Stop | None":
        """None when it is time to rescan."""
        if not self._interval_s:
            return self._inbox.get()
        try:
            return self._inbox.get(timeout=max(0.0, self._due - time.monotonic()))
        except Empty:
            return None

    def _answer(self, done: "Future[None]") -> None:
        if not done.set_running_or_notify_cancel():
            return
        try:
            self._registry.refresh(again=True, pause=self._throttle)
            done.set_result(None)
        except Exception as exc:
            done.set_exception(exc)
            del done  # the error's trace holds this frame, and those below it, which must not hold the error

    def _poll(self) -> bool:
        """Refresh where the folder has changed. Returns whether anything came or went.

        A version may appear after the fingerprint was taken and vanish before the next one, which is then equal.
        Therefore refreshes go on until one finds nothing new.
        """
        changed = False
        try:
            found = fingerprint.of_repository(self._registry.repository)
            if found != self._seen:
                changed = self._registry.refresh(pause=self._throttle)
                self._seen = None if changed else found
            wait_s, self._failure = self._interval_s, ""
            self._backoff.reset()
        except Exception as exc:  # whatever it is, the models in service go on
            wait_s = self._backoff.next_s()
            self._note(exc)
        self._due = time.monotonic() + wait_s
        return changed

    def _note(self, error: Exception) -> None:
        """Log a failure once, not at every attempt."""
        reason = str(error)
        if reason != self._failure:
            _log(error)
        self._failure = reason


def _log_failure(done: "Future[None]") -> None:
    error = done.exception()
    if error is not None:
        _log(error)


def _log(error: BaseException) -> None:
    known = isinstance(error, OSError | AntherError)
    log.error("the models cannot be rescanned, so they stay as they are: %s", error, exc_info=None if known else error)
