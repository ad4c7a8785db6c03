"""Files that may change while the server runs: read again every second, the last good content kept.

They are read, not only looked at: a time stamp is too coarse for two changes within a tick, and they are small.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from anther.errors import AntherError
from service.config import Settings
from service.identity.access import Access
from service.identity.tokens import parse, read

log = logging.getLogger(__name__)

_EVERY_S = 1.0

OnCheck = Callable[[str, bool], None]
"""Called with a source's `what`, and whether what its files say now is what is in use."""


class Source(Protocol):
    @property
    def what(self) -> str:
        """In one word, for the log and for a metric's label."""
        ...

    def refresh(self) -> bool:
        """Take over what the files say; whether it is anything new. Raises `AntherError`, and has then kept the old."""
        ...


class TokensFile:
    """Its tokens are those that `access` knows. Raises `TokensInvalid` when it is made, too."""

    what = "tokens"

    def __init__(self, path: Path, access: Access) -> None:
        self._path, self._access = path, access
        self._data = read(path)
        access.use(parse(self._data, path))

    def refresh(self) -> bool:
        data = read(self._path)
        if data == self._data:
            return False
        self._access.use(parse(data, self._path))
        self._data = data
        return True


def followed_access(settings: Settings, workers: int) -> tuple[Access, list[Source]]:
    """Who may call, and the files that say so. Raises `TokensInvalid` and `KeysInvalid`."""
    sources: list[Source] = []
    issuer = None
    if settings.jwt_keys:
        from service.identity.jwt import JwtIssuer  # an extra

        issuer = JwtIssuer(Path(settings.jwt_keys), settings.jwt_issuer, settings.jwt_audience)
        sources.append(issuer)
    access = Access(() if settings.tokens else None, workers, issuer=issuer)
    if settings.tokens:
        sources.append(TokensFile(Path(settings.tokens), access))
    return access, sources


class Follower:
    """`start` begins to follow the sources, on a thread; `close` ends it. Without sources there is no thread."""

    def __init__(self, sources: Sequence[Source], on_check: OnCheck) -> None:
        self._sources, self._on_check = sources, on_check
        self._failures: dict[str, str] = {}
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="identity", daemon=True)

    def start(self) -> None:
        for source in self._sources:
            self._on_check(source.what, True)
        if self._sources:
            self._thread.start()

    def close(self) -> None:
        self._closed.set()
        if self._thread.is_alive():
            self._thread.join()

    def check(self) -> None:
        for source in self._sources:
            self._check(source)

    def _follow(self) -> None:
        while not self._closed.wait(_EVERY_S):
            self.check()

    def _check(self, source: Source) -> None:
        before = self._failures.pop(source.what, "")
        try:
            if source.refresh() or before:
                log.info("%s: the files as they are now are in use", source.what)
        except AntherError as exc:
            self._failures[source.what] = str(exc)
            if str(exc) != before:
                log.error("%s; what was read before stays in use", exc)
        except Exception:
            self._failures[source.what] = "unforeseen"
            if before != "unforeseen":
                log.exception("%s: reading the files failed; what was read before stays in use", source.what)
        self._on_check(source.what, source.what not in self._failures)
