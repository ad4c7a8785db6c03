"""The attacks of `tests.faults.attack`, small: each bounded by a count or by bytes, and at no honest caller's cost."""

import contextlib
import shutil
from pathlib import Path

import grpc
import pytest

from tests.faults import attack, flood, web
from tests.faults.victim import CLASSIFY, Victim

LARGEST = 5 * 10**6  # bytes of a picture
ROOM = 40 * 10**6  # bytes for messages on their way in
WINDOW = 128 * 1024  # bytes of a message that come unasked
WEB_WINDOW = 320 * 1024  # the same over HTTP
STREAM = "/anther.v1.ImageClassifier/ClassifyStream"
CHECK = "/grpc.health.v1.Health/Check"
CONNECTIONS = 80
UPLOADS = 60
SLACK = 64 * 2**20  # bytes that honest pictures take meanwhile, and buffers of connections
LIMITS = {"--max-image-bytes": LARGEST, "--arrival-bytes": ROOM, "--arrival-s": 2, "--idle-s": 1}


@pytest.fixture(scope="module")
def limited(start_victim) -> Victim:
    options = [str(word) for option in LIMITS.items() for word in option]
    web_options = ["--http-port", "0", "--http-connections", str(CONNECTIONS)]
    return start_victim("--lanes", "2", "--grpc-connections", str(CONNECTIONS), *web_options, *options)


@pytest.fixture
def victim(limited: Victim, pictures):
    yield limited
    limited.prove(pictures)


@pytest.fixture(scope="module")
def picture(pictures) -> bytes:
    return pictures["roses"]


@pytest.mark.parametrize("connections", [1, 40])
def test_calls_of_a_burst_are_answered_or_told_when_to_come_back(victim, picture, connections: int) -> None:
    """More of them than gRPC lets wait by itself, before it cancels."""
    ends = attack.burst(victim, picture, 1500, connections)["ends"]
    assert set(ends) <= {"OK", "RESOURCE_EXHAUSTED with a retry hint"}
    assert ends["OK"] >= 100
    if connections == 1:
        assert ends == {"OK": 1500}, "one connection has a hundred calls in the server, and the rest at the client"


def test_streams_that_are_reset_at_once_harm_nobody(victim, picture) -> None:
    found = attack.resets(victim, picture, 20_000)
    assert set(found["honest"]) == {"OK"}


def test_a_connection_has_a_hundred_streams(victim) -> None:
    with flood.connected(victim.port) as connection:
        connection.sendall(flood.frame(flood.SETTINGS, flood.ACK, 0, b""))
        assert flood.refused(connection, 400) >= 290  # near the limit some are refused by chance


@pytest.mark.parametrize("path", [CLASSIFY, STREAM, CHECK])
def test_messages_that_never_end_hold_no_more_than_their_room_and_end(victim, picture, path: str) -> None:
    """Half of the room is one caller's, and four messages are tried beside it."""
    before = victim.vitals().memory
    victim.forget_peak()
    with attack.Honest(victim, picture) as honest, contextlib.ExitStack() as stack:
        begun = flood.uploads(victim.port, UPLOADS, LARGEST, LARGEST - 1, path)
        for upload in begun:
            stack.enter_context(upload.connection)
        flood.push(begun, seconds=60, quiet_s=60)
        assert all(upload.ended for upload in begun)
    assert victim.peak() - before < ROOM / 2 + 4 * LARGEST + UPLOADS * WINDOW + SLACK < UPLOADS * LARGEST / 2
    assert set(honest.ends) == {"OK"}


@pytest.mark.parametrize("chunked", [False, True])
def test_bodies_that_never_end_hold_no_more_than_their_room_and_end(victim, picture, chunked: bool) -> None:
    """The same over HTTP, in the same room."""
    before = victim.vitals().memory
    victim.forget_peak()
    with web.HonestWeb(victim, picture) as honest, contextlib.ExitStack() as stack:
        begun = [web.Posting(web.web_port(victim), LARGEST, chunked) for _ in range(UPLOADS)]
        for posting in begun:
            stack.enter_context(posting.connection)
        flood.push(begun, seconds=60, quiet_s=60)
        assert {posting.end for posting in begun} <= {"408", "429", "closed"}
    assert victim.peak() - before < ROOM / 2 + 4 * LARGEST + UPLOADS * WEB_WINDOW + SLACK < UPLOADS * LARGEST / 2
    assert set(honest.ends) == {"200"}


def test_connections_that_say_nothing_make_room(victim, picture) -> None:
    found = web.silent(victim, picture, 3 * CONNECTIONS)
    assert found["descriptors"] <= CONNECTIONS + 20
    assert found["threads"] <= 0
    assert found["honest"].get("200", 0) > 0


def test_connections_that_drip_at_the_operations_port_hold_no_thread(victim, picture) -> None:
    found = web.dripping(victim, picture, 200, drips=2)
    assert found["descriptors"] <= 64
    assert found["threads"] <= 0


def test_pings_without_pause_hold_nobody_up(victim, picture) -> None:
    found = attack.pings(victim, picture, seconds=0.5)
    assert set(found["honest"]) == {"OK"}


def test_connections_are_bounded_and_idle_ones_are_closed(victim, picture) -> None:
    found = attack.idle(victim, picture, 2 * CONNECTIONS, stay_s=60)
    assert found["most_open"] <= CONNECTIONS + 20
    assert found["open_after"] == 0
    assert found["honest"].get("OK", 0) > 0


def test_an_id_of_megabytes_is_refused_and_not_repeated(victim, picture) -> None:
    found = attack.identifier(victim, picture, 10**6)
    assert (found["end"], found["echoed"]) == ("INVALID_ARGUMENT", 0)
    assert "at most 1,024 characters" in found["message"]


def test_who_asks_for_an_unloaded_model_reads_nothing_of_the_servers_folders(start_victim, models, picture, tmp_path):
    shutil.copytree(models, tmp_path / "here")
    victim = start_victim("--control", models=tmp_path / "here")
    found = attack.unloaded(victim, picture)
    assert found["end"] == "UNAVAILABLE"
    assert "/" not in found["message"]
    assert str(tmp_path) not in found["facts"]


def test_a_server_with_few_descriptors_takes_fewer_connections_and_rests(picture) -> None:
    with attack.attacked(Path.cwd(), [], limit=64) as victim:
        found = attack.descriptors(victim, (Path("examples") / "daisy.jpg").read_bytes(), 100, seconds=1)
    assert found["open"] < 64
    assert found["cores_used"] < 0.5
    assert found["scraped"] == 1
    assert found["afterwards"] == grpc.StatusCode.OK.name
