"""One file over HTTP that survives cut connections: what has arrived stays, and the next attempt asks for the rest.

A range request as in RFC 9110, section 14; If-Range (13.1.5) makes sure that the rest is of the same file.
"""

import json
import math
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.message import Message
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import cast
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from anther.backoff import Backoff
from bundle.repository import sha256_of
from training.errors import DownloadFailed
from training.files import write_json
from training.progress import Reporter

_CHUNK = 2**18
_TIMEOUT_S = 30.0
_ATTEMPTS = 6  # in a row that bring nothing
_LONGEST_WAIT_S = 30.0
_MAY_PASS = {408, 425, 429, 500, 502, 503, 504}
_LARGEST = 20 * 10**9  # bytes, where no size is known beforehand

Sleep = Callable[[float], None]


@dataclass(frozen=True)
class Published:
    """A file as its publisher describes it; `size` in bytes, None where only the digest is known."""

    url: str
    sha256: str
    size: int | None


class _Interrupted(Exception):
    """Worth another attempt."""


def fetch(published: Published, path: Path, reporter: Reporter, sleep: Sleep = time.sleep) -> None:
    """Bring the file to `path`, where it is not there already; an earlier call's `path`.partial is continued.

    Raises `DownloadFailed`, or `OSError` of the disk. A file of the wrong size or digest is deleted.
    """
    if urlsplit(published.url).scheme not in {"http", "https"}:
        raise DownloadFailed(published.url, "it is no HTTP address", "give one with --url https://…")
    if path.exists() and sha256_of(path) == published.sha256:
        return
    partial = path.with_name(path.name + ".partial")
    backoff, failures, reason = Backoff(1.0, _LONGEST_WAIT_S, jitter=0.5), 0, ""
    while failures < _ATTEMPTS:
        before = _size(partial)
        try:
            if before == 0 or before != published.size:
                _attempt(published, partial, reporter)
            _prove(published, partial)
            partial.replace(path)
            _validator_of(partial).unlink(missing_ok=True)
            return
        except _Interrupted as exc:
            if _size(partial) > before:
                backoff.reset()
                failures = 0
            failures, reason = failures + 1, str(exc)
            reporter.say(f"download interrupted at {_size(partial):,} bytes ({reason}); trying again")
            sleep(backoff.next_s())
    advice = "check the connection and run the command again: what has arrived is kept"
    raise DownloadFailed(published.url, reason, advice)


def _attempt(published: Published, partial: Path, reporter: Reporter) -> None:
    """One request, appended to `partial` or begun anew, as the server decides. Raises `_Interrupted` before the end."""
    request = Request(published.url, headers=_conditions(published, partial))  # noqa: S310 - the scheme was checked
    try:
        with cast("HTTPResponse", urlopen(request, timeout=_TIMEOUT_S)) as response:  # noqa: S310
            start = _start(response, partial)
            total = _total(published, response, start)
            if start == 0:
                _remember(published, partial, response.headers)
            _append(response, partial, start, total, reporter)
    except HTTPError as exc:
        exc.close()
        if exc.code == 416 and exc.headers.get("Content-Range") == f"bytes */{_size(partial)}":
            return  # all of it is here
        if exc.code == 416:  # what is here is no beginning of what is there
            partial.unlink(missing_ok=True)
        elif exc.code not in _MAY_PASS:
            advice = "check the address, or give another with --url"
            raise DownloadFailed(published.url, f"the server says {exc.code} {exc.reason}", advice) from exc
        raise _Interrupted(f"the server says {exc.code} {exc.reason}") from exc
    except (URLError, HTTPException, TimeoutError, ConnectionError, ssl.SSLError) as exc:
        raise _Interrupted(str(getattr(exc, "reason", exc)) or type(exc).__name__) from exc
    if total is not None and _size(partial) < total:
        raise _Interrupted("the connection was closed early")


def _append(response: HTTPResponse, partial: Path, start: int, total: int | None, reporter: Reporter) -> None:
    """Raises `DownloadFailed` where the server sends more than it said."""
    largest = _LARGEST if total is None else total
    steps = 0 if total is None else math.ceil((total - start) / _CHUNK)
    with partial.open("ab" if start else "wb") as file:
        for chunk in reporter.track(_chunks(response), "Downloading", steps):
            start += len(chunk)
            if start > largest:
                raise DownloadFailed(response.url, f"it is longer than {largest:,} bytes", "give another with --url")
            file.write(chunk)


def _chunks(response: HTTPResponse) -> Iterator[bytes]:
    while chunk := response.read(_CHUNK):
        yield chunk


def _conditions(published: Published, partial: Path) -> dict[str, str]:
    """Ask for the rest of what is here, provided that the server still has the same file."""
    found, size = _remembered(partial), _size(partial)
    if size == 0 or found.get("url") != published.url:
        return {}
    headers = {"Range": f"bytes={size}-"}
    return headers | ({"If-Range": found["validator"]} if found.get("validator") else {})


def _start(response: HTTPResponse, partial: Path) -> int:
    """Where the answer's bytes belong; 0 where the server sends everything."""
    if response.status != 206:
        return 0
    span = response.headers.get("Content-Range", "")
    if span.startswith(f"bytes {_size(partial)}-"):
        return _size(partial)
    partial.unlink(missing_ok=True)
    raise _Interrupted(f"the server sent another range than was asked for ({span})")


def _total(published: Published, response: HTTPResponse, start: int) -> int | None:
    """Bytes of the whole file, as far as anybody says. Raises `DownloadFailed` where it is not the published one."""
    told = None if response.length is None else start + response.length
    if published.size is not None and told not in {None, published.size}:
        reason = f"it has {told:,} bytes there, and the published file has {published.size:,}"
        raise DownloadFailed(published.url, reason, "give another address with --url")
    return published.size if told is None else told


def _prove(published: Published, partial: Path) -> None:
    """Raises `DownloadFailed` after deleting what is not the published file."""
    found = sha256_of(partial)
    if found != published.sha256:
        partial.unlink()
        _validator_of(partial).unlink(missing_ok=True)
        reason = f"its SHA-256 is {found}, expected {published.sha256}, so it was deleted"
        raise DownloadFailed(published.url, reason, "try again, or give another address with --url")


def _remember(published: Published, partial: Path, headers: Message) -> None:
    """A strong validator if the server gives one: If-Range is not defined for weak ones."""
    etag = headers.get("ETag", "")
    validator = etag if etag.startswith('"') else headers.get("Last-Modified", "")
    write_json(_validator_of(partial), {"url": published.url, "validator": validator})


def _remembered(partial: Path) -> dict[str, str]:
    """Nothing where nothing can be read: then the download starts anew."""
    try:
        found = json.loads(_validator_of(partial).read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _validator_of(partial: Path) -> Path:
    return partial.with_name(partial.name + ".json")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
