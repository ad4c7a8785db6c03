"""Pictures that ask for more memory or work than they are worth, through the real port of a server of their own."""

import re
from pathlib import Path

import grpc
import pytest

from anther.v1 import classifier_pb2 as pb
from anther.v1.classifier_pb2_grpc import ImageClassifierStub
from tests.faults.bombs import AT_THE_LIMIT, CLAIMS, EXPANDING, LIMIT, TOO_MUCH_WORK, chunk, many_tags, red_png
from tests.faults.victim import PATIENCE_S, Victim

LARGEST = 20 * 10**6  # bytes of a picture that the server takes
SMALL_CHANGE = 64 * 2**20  # bytes: a megabyte of text, a few copies of the file, what malloc keeps
BYTES_PER_PIXEL = 21  # the most that any kind takes between file and answer


@pytest.fixture(scope="module")
def alone(start_victim) -> Victim:
    """One lane, so that memory can be told apart."""
    return start_victim("--lanes", "1")


@pytest.fixture
def victim(alone, pictures):
    yield alone
    alone.prove(pictures)


def end_and_growth(victim: Victim, picture: bytes) -> tuple[str, int]:
    """How a call with the picture ends, and by how many bytes the server's memory had grown at most.

    A picture that takes long is decoded in a process of the server's, whose growth counts as well.
    """
    with victim.channel() as channel:
        before, decoders = victim.vitals().memory, {pid: held(pid) for pid in children(victim)}
        victim.forget_peak()
        call = ImageClassifierStub(channel).Classify.future(pb.ClassifyRequest(image=picture), timeout=PATIENCE_S)
        end = call.code().name
        return end, victim.peak() - before + sum(held(pid) - decoders.get(pid, 0) for pid in children(victim))


def children(victim: Victim) -> list[int]:
    threads = Path(f"/proc/{victim.process.pid}/task").glob("*/children")
    return [int(pid) for thread in threads for pid in thread.read_text().split()]


def held(pid: int) -> int:
    """The most resident memory that a process has had, in bytes."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) * 1024 if found else 0


@pytest.mark.parametrize("name", CLAIMS)
def test_a_header_of_too_many_pixels_is_refused_in_little_memory(victim, name: str) -> None:
    end, grown = end_and_growth(victim, CLAIMS[name]())
    assert end == grpc.StatusCode.INVALID_ARGUMENT.name
    assert grown < SMALL_CHANGE


@pytest.mark.parametrize("name", EXPANDING)
def test_a_file_that_could_unfold_to_gigabytes_does_not(victim, name: str) -> None:
    end, grown = end_and_growth(victim, EXPANDING[name]())
    assert end in {"OK", "INVALID_ARGUMENT"}
    assert grown < 2 * SMALL_CHANGE  # Pillow's own bound for the texts of a PNG is as much


@pytest.mark.parametrize("name", AT_THE_LIMIT)
def test_a_picture_at_the_limit_is_answered(victim, name: str) -> None:
    end, grown = end_and_growth(victim, AT_THE_LIMIT[name]())
    assert end == "OK"
    assert grown < BYTES_PER_PIXEL * LIMIT


def test_a_file_of_as_many_bytes_as_the_server_takes_is_answered_and_one_more_is_refused(victim) -> None:
    padding = LARGEST - len(red_png(chunk(b"juNk", b"")))
    assert end_and_growth(victim, red_png(chunk(b"juNk", bytes(padding))))[0] == "OK"
    assert end_and_growth(victim, red_png(chunk(b"juNk", bytes(padding + 1))))[0] == "INVALID_ARGUMENT"


@pytest.mark.parametrize("name", TOO_MUCH_WORK)
def test_a_file_that_would_keep_a_lane_for_minutes_is_refused(victim, name: str) -> None:
    assert end_and_growth(victim, TOO_MUCH_WORK[name]())[0] == "INVALID_ARGUMENT"


def test_a_picture_of_thousands_of_oddities_does_not_flood_the_log(victim) -> None:
    """Pillow warns of every tag that is longer than the file."""
    before = victim.errors.stat().st_size
    assert end_and_growth(victim, many_tags(20_000, 5000))[0] in {"OK", "INVALID_ARGUMENT"}
    assert victim.errors.stat().st_size - before < 1000
