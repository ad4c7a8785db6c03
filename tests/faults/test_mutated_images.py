"""Ten thousand damaged pictures through the real port: each is answered or refused, and the server stays as it was."""

import json
from collections import Counter, deque
from collections.abc import Iterator
from typing import Any

import pytest

from anther.v1 import classifier_pb2 as pb
from anther.v1.classifier_pb2_grpc import ImageClassifierStub
from tests.faults.mutations import mutated
from tests.faults.victim import PATIENCE_S, Victim

COUNT, IN_FLIGHT = 10_000, 16
MEGABYTE = 2**20


@pytest.fixture(scope="session")
def seeds(small_files) -> list[bytes]:
    """Small pictures of every kind that decoders treat differently."""
    return list(small_files.values())


def test_the_damage_is_real_and_the_same_every_time(seeds) -> None:
    damaged = [mutated(number, seeds) for number in range(500)]
    assert damaged == [mutated(number, seeds) for number in range(500)]
    assert sum(picture in seeds for picture in damaged) < 50


@pytest.mark.timeout(600)
def test_damaged_pictures_are_answered_or_refused_and_the_server_stays_right(start_victim, seeds, pictures) -> None:
    victim = start_victim("--log-format", "json", "--slow-lanes", "1")
    victim.prove(pictures)
    before = victim.vitals()
    ends = Counter(ends_of(victim, seeds))
    victim.prove(pictures)
    assert ends.keys() == {"OK", "INVALID_ARGUMENT"}
    assert ends.total() == COUNT
    assert min(ends.values()) > COUNT / 10  # or the damage was too mild, or too wild, to find anything
    assert victim.vitals().threads <= before.threads + 1  # a slow lane starts with the first image that takes long
    assert victim.vitals().memory - before.memory < 200 * MEGABYTE
    assert victim.stop() == 0
    assert_quiet(victim.errors.read_text())


def ends_of(victim: Victim, seeds: list[bytes]) -> Iterator[str]:
    with victim.channel() as channel:
        stub, pending = ImageClassifierStub(channel), deque[Any]()
        for number in range(COUNT):
            if len(pending) == IN_FLIGHT:
                yield pending.popleft().code().name
            request = pb.ClassifyRequest(image=mutated(number, seeds))
            pending.append(stub.Classify.future(request, timeout=PATIENCE_S))
        for call in pending:
            yield call.code().name


def assert_quiet(log: str) -> None:
    """Lines of libtiff itself may stand between ours, which tell of nothing but the start and the end."""
    lines = log.splitlines()
    records = [json.loads(line) for line in lines if line.startswith("{")]
    assert {record["level"] for record in records} == {"info"}
    assert records[-1]["message"] == "stopped"
    assert not any("Traceback" in line for line in lines)
