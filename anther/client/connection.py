"""Which server a client speaks to, what it shows of itself, and whether the client has been closed since."""

import asyncio
from types import TracebackType

from anther.client.call_failed import CallFailed


class Connection:
    """Within it, whatever becomes of a call after the client was closed is one error.

    gRPC puts that in many ways: CANCELLED, `ValueError`, `UsageError`, and `asyncio.CancelledError` although nobody has
    cancelled the caller's task.
    """

    def __init__(self, target: str, metadata: tuple[tuple[str, str], ...] = ()) -> None:
        self.target, self.metadata = target, metadata  # the latter goes with each call
        self._closed = False

    def close(self) -> None:
        self._closed = True

    def check(self) -> None:
        """Raises `CallFailed` with the reason CLIENT_CLOSED after `close`."""
        if self._closed:
            raise self._failure()

    def __enter__(self) -> None:
        self.check()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._closed and (isinstance(error, Exception) or _cancelled_by_grpc(error)):
            raise self._failure() from error

    def _failure(self) -> CallFailed:
        message = f"the client of {self.target} is closed; make another one to go on"
        return CallFailed("CANCELLED", "CLIENT_CLOSED", message)


def _cancelled_by_grpc(error: BaseException | None) -> bool:
    """And not by whoever cancels the caller's task, which must end then."""
    if not isinstance(error, asyncio.CancelledError):
        return False
    task = asyncio.current_task()
    return task is not None and not task.cancelling()
