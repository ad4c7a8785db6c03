"""Every error has its place in the one table, and a detail that programs can read."""

import inspect
import re
from collections.abc import Iterator

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from anther.errors import AntherError, reason_of
from bundle import errors as bundle_errors
from bundle.errors import BundleRefused, ImageTooManyBytes, ImageTooManyPixels, ModelNotFound
from service import errors
from service.edge.failures import CODES, OWN_AFFAIRS
from service.errors import DeadlineExpired, Draining, InvalidArgument, QueueFull, UnknownPath
from service.rpc.status import Status, status_of

Code = grpc.StatusCode
TREES = {bundle_errors.__name__, errors.__name__}


def leaves(kind: type[AntherError] = AntherError) -> Iterator[type[AntherError]]:
    """Every error of the two trees that nothing derives from."""
    children = [child for child in kind.__subclasses__() if child.__module__ in TREES]
    if not children:
        yield kind
    for child in children:
        yield from leaves(child)


def bare(kind: type[AntherError]) -> AntherError:
    """One of that class, without the facts that its constructor asks for."""
    error = kind.__new__(kind)
    AntherError.__init__(error, "a message", fact="value")
    if isinstance(error, QueueFull):
        error.retry_after_s = 0.5
    return error


LEAVES = sorted(leaves(), key=lambda kind: kind.__name__)


def details(
    status: Status,
) -> tuple[status_pb2.Status, list[error_details_pb2.ErrorInfo | error_details_pb2.RetryInfo]]:
    ((key, data),) = status.trailing_metadata
    assert key == "grpc-status-details-bin"
    whole, found = status_pb2.Status.FromString(data), []
    for packed in whole.details:
        kind = {"ErrorInfo": error_details_pb2.ErrorInfo, "RetryInfo": error_details_pb2.RetryInfo}
        message = kind[packed.TypeName().rpartition(".")[2]]()
        assert packed.Unpack(message)
        found.append(message)
    return whole, found


def test_the_trees_are_those_that_the_table_must_know() -> None:
    assert len(LEAVES) >= 20


@pytest.mark.parametrize("kind", LEAVES, ids=lambda kind: kind.__name__)
def test_every_leaf_has_a_code_of_its_own_meaning(kind: type[AntherError]) -> None:
    assert any(above in CODES for above in kind.__mro__)
    status = status_of(bare(kind))
    assert status.code not in {Code.OK, Code.UNKNOWN, Code.INTERNAL}
    whole, (info, *_) = details(status)
    assert whole.code == status.code.value[0]
    told = next((OWN_AFFAIRS[above] for above in kind.__mro__ if above in OWN_AFFAIRS), None)
    assert whole.message == status.message == (told or "a message")
    facts = {} if told else {"fact": "value"}
    assert (info.reason, info.domain, dict(info.metadata)) == (status.reason, "anther", facts)


@pytest.mark.parametrize("kind", LEAVES, ids=lambda kind: kind.__name__)
def test_no_caller_reads_a_path_of_the_server(kind: type[AntherError]) -> None:
    """What is made of a path, or of another program's sentence about one, is the server's own affair."""
    takes = inspect.signature(kind.__init__).parameters
    about_files = {"path", "folder", "embedded"} & takes.keys() or issubclass(kind, BundleRefused)
    if about_files and kind is not UnknownPath:  # that one repeats the caller's own
        assert any(above in OWN_AFFAIRS for above in kind.__mro__)


@pytest.mark.parametrize("kind", LEAVES, ids=lambda kind: kind.__name__)
def test_every_reason_is_legal(kind: type[AntherError]) -> None:
    """google.rpc.ErrorInfo: at most 63 characters of [A-Z][A-Z0-9_]+[A-Z0-9]."""
    assert re.fullmatch(r"[A-Z][A-Z0-9_]{1,61}[A-Z0-9]", reason_of(kind))


def test_reasons_tell_errors_apart() -> None:
    assert len({reason_of(kind) for kind in LEAVES}) == len(LEAVES)


def test_every_row_of_the_table_is_an_error_of_ours() -> None:
    assert {kind.__module__ for kind in CODES} == TREES


@pytest.mark.parametrize(
    ("error", "code", "reason"),
    [
        (ImageTooManyBytes(21, 20), Code.INVALID_ARGUMENT, "IMAGE_TOO_MANY_BYTES"),
        (ModelNotFound("trees", ["flowers"]), Code.NOT_FOUND, "MODEL_NOT_FOUND"),
        (InvalidArgument("top_k", -1, "0 or more"), Code.INVALID_ARGUMENT, "INVALID_ARGUMENT"),
        (QueueFull(5, 5, "requests", 0.25), Code.RESOURCE_EXHAUSTED, "QUEUE_FULL"),
        (DeadlineExpired(0.5), Code.DEADLINE_EXCEEDED, "DEADLINE_EXPIRED"),
        (Draining(), Code.UNAVAILABLE, "DRAINING"),
    ],
)
def test_an_error_becomes_its_code_and_reason(error: AntherError, code: grpc.StatusCode, reason: str) -> None:
    status = status_of(error)
    assert (status.code, status.reason, status.message) == (code, reason, str(error))


def test_facts_travel_as_metadata() -> None:
    _, (info,) = details(status_of(ImageTooManyPixels(60, 50, (6, 10))))
    assert dict(info.metadata) == {"found": "60", "limit": "50"}


@pytest.mark.parametrize(("seconds", "expected"), [(0.25, (0, 250_000_000)), (2.5, (2, 500_000_000)), (3.0, (3, 0))])
def test_a_full_queue_says_when_to_retry(seconds: float, expected: tuple[int, int]) -> None:
    _, (_, retry) = details(status_of(QueueFull(5, 5, "requests", seconds)))
    assert (retry.retry_delay.seconds, retry.retry_delay.nanos) == expected


@pytest.mark.parametrize("error", [ValueError("secret path"), KeyError("x"), RuntimeError(), AssertionError("why")])
def test_what_nobody_foresaw_is_internal_with_a_fixed_text(error: Exception) -> None:
    status = status_of(error)
    assert (status.code, status.reason) == (Code.INTERNAL, "INTERNAL")
    assert status.message == "internal error; the trace is in the server's log"
    whole, (info,) = details(status)
    assert dict(info.metadata) == {}
    assert b"secret" not in whole.SerializeToString()


def test_an_error_of_ours_without_a_row_is_internal() -> None:
    class Unheard(AntherError):
        pass

    assert status_of(Unheard("new")).code is Code.INTERNAL


@pytest.mark.parametrize("letter", ["x", "é", "花", "🌼"])
def test_a_status_fits_into_the_headers_that_clients_take(letter: str) -> None:
    """gRPC clients refuse metadata over 8 KiB, and the call then fails for a reason that is not ours."""
    status = status_of(ModelNotFound(letter * 10**6, [letter * 64] * 100))
    ((_, data),) = status.trailing_metadata
    encoded = 4 / 3 * len(data) + 3 * len(status.message.encode())  # base64, and percent signs
    assert encoded < 8000
    assert status.message.startswith(f"no model '{letter * 50}")
    assert status.message.endswith("…")
    _, (info,) = details(status)
    assert info.metadata["model"].startswith(letter * 50)
