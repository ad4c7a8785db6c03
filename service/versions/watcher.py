"""The thread that keeps the registry in step with the folder of models, and lets go of what has left service.

It looks when the folder has changed, which it sees by stat alone, and when it is told to. ONNX Runtime 1.31.1 does not
hold the interpreter lock while it creates a session (60 ms for MobileNetV2; the longest gap that another thread saw was
the lock's own 5 to 15 ms), so a thread is enough. It rests between the steps of loading: at normal priority and with
rests p99 rose by a quarter while a version came in, without them by three quarters.
"""

import logging
import threading
import time
from concurrent.futures import Future
from contextlib import suppress
from queue import Empty, SimpleQueue

from anther.errors import AntherError
from service.engines.engine import Engine
from service.errors import Draining
from service.system import memory
from service.versions import fingerprint
from service.versions.registry import Registry
from service.versions.throttle import Throttle

log = logging.getLogger(__name__)

_REST = 3.0  # while a version is loaded beside requests: this many times as long as the work between two rests
_LONGEST_WAIT_S = 60.0  # between attempts to look at a folder that cannot be looked at


class _Stop:
    """Ends the thread."""


class Watcher:
    """Looks at the folder every `interval_s` seconds, 0 for never, and whenever `reconcile` is called."""

    def __init__(self, registry: Registry, interval_s: float) -> None:
        self._registry = registry
        self._interval_s = self._wait_s = interval_s
        self._due = time.monotonic() + interval_s
        self._inbox: SimpleQueue[Future[None] | Engine | _Stop] = SimpleQueue()
        self._lock = threading.Lock()
        self._closed = False
        self._asked: Future[None] | None = None  # the last by `look`
        self._seen: object = None
        self._failure = ""
        self._thread = threading.Thread(target=self._run, name="models")

    def start(self) -> None:
        """What changed since the registry was loaded is taken over at the first look."""
        self._registry.dispose, self._registry.pause = self._inbox.put, Throttle(_REST)
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

    def reconcile_now(self, timeout_s: float | None = None) -> None:
        """`reconcile`, and wait for it. Raises also `TimeoutError`; the work then goes on."""
        self.reconcile().result(timeout_s)

    def look(self) -> None:
        """`reconcile` for who waits for no answer: what fails is logged. Nothing after `close`.

        For one thread. Calls that come while one has not begun are one with it, as it will see what they would.
        """
        if self._asked is not None and not (self._asked.running() or self._asked.done()):
            return
        with suppress(Draining):
            self._asked = self.reconcile()
            self._asked.add_done_callback(_log_failure)

    def close(self) -> None:
        """Does what was asked for, and waits for a version that is being loaded."""
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
            del item  # an engine's last reference: here the time that freeing takes delays no request
            if worked:
                memory.give_back()

    def _next(self) -> "Future[None] | Engine | _Stop | None":
        """None when it is time to look."""
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
            self._registry.refresh(again=True)
            done.set_result(None)
        except Exception as exc:
            done.set_exception(exc)
            del done  # the error's trace holds this frame, and those below it, which must not hold the error

    def _poll(self) -> bool:
        """Whether anything has come or gone.

        A refresh may find what is younger than the fingerprint and gone before the next one, which is then equal; so
        there are refreshes until one finds nothing.
        """
        changed = False
        try:
            found = fingerprint.of_repository(self._registry.repository)
            if found != self._seen:
                changed = self._registry.refresh()
                self._seen = None if changed else found
            self._wait_s, self._failure = self._interval_s, ""
        except Exception as exc:  # whatever it is, the models in service go on
            self._note(exc)
        self._due = time.monotonic() + self._wait_s
        return changed

    def _note(self, error: Exception) -> None:
        """Once, not at every attempt; and the attempts become rarer."""
        self._wait_s = min(2 * self._wait_s, max(_LONGEST_WAIT_S, self._interval_s))
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
    log.error("the models cannot be looked at, so they stay as they are: %s", error, exc_info=None if known else error)
