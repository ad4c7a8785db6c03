"""The images of a request: its body as it is, or the files of a form."""

from collections.abc import AsyncGenerator

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from bundle.errors import ImageTooManyBytes
from service.errors import EncodingRefused, InvalidArgument
from service.http.exchange import Request

MAX_FILES = 64
_FORM = "multipart/form-data"
_OF_IMAGES = 2  # images of the largest size that a form may hold
_ENVELOPE_BYTES = 64 * 1024  # of a form beside its files

Upload = tuple[str, bytes]
"""A file's name, which is empty for a body as it is, and its bytes."""


async def uploads(request: Request, most: int) -> list[Upload]:
    """At least one, each of at most `most` bytes.

    Raises `ImageTooManyBytes`, `RequestTooLarge`, `EncodingRefused` and `InvalidArgument`.
    """
    encoding = request.headers.get("content-encoding", "identity")
    if encoding.lower() != "identity":
        raise EncodingRefused(encoding, "identity")
    if not request.headers.get("content-type", "").lower().startswith(_FORM):
        return [("", await request.body(most, lambda found: ImageTooManyBytes(found, most)))]
    files = await request.receive(_OF_IMAGES * most + _ENVELOPE_BYTES, lambda pieces: _files(request, pieces))
    for _, data in files:
        if len(data) > most:
            raise ImageTooManyBytes(len(data), most)
    return files


class _InMemory(MultiPartParser):
    spool_max_size = 2**31  # larger than any form; Starlette would write files to the disk


async def _files(request: Request, pieces: AsyncGenerator[bytes, None]) -> list[Upload]:
    try:
        form = await _InMemory(request.headers, pieces, max_files=MAX_FILES, max_fields=0).parse()
    except MultiPartException as exc:
        found = "a field that is no file" if "fields" in exc.message else exc.message[:100]
        raise InvalidArgument("form", found, f"1 to {MAX_FILES} files as {_FORM}, nothing else") from exc
    try:
        files = [file for _, file in form.multi_items() if isinstance(file, UploadFile)]
        if not files:
            raise InvalidArgument("form", "without files", f"1 to {MAX_FILES} files")
        return [(file.filename or "", await file.read()) for file in files]
    finally:
        await form.close()
