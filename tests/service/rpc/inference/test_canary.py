"""A canary on the wire: the request's own id decides, in both protocols; what is told of a model does not waver."""

import pytest

from anther.v1 import classifier_pb2 as pb
from service.versions.routes import CANARY, falls_into

IDS = [f"request {number}" for number in range(40)]
EXPECTED = [2 if falls_into(0.5, CANARY, each) else 1 for each in IDS]


@pytest.fixture
def edge(start_canary):
    return start_canary(0.5)


def test_the_ids_here_fall_both_ways() -> None:
    assert set(EXPECTED) == {1, 2}


def test_a_calls_id_decides(edge, pictures) -> None:
    calls = [edge.stub.Classify(pb.ClassifyRequest(image=pictures["daisy"], id=each)) for each in IDS]
    assert [call.version for call in calls] == EXPECTED


def test_a_stream_items_id_decides(edge, pictures) -> None:
    requests = (pb.ClassifyRequest(image=pictures["daisy"], id=each) for each in IDS)
    answers = {item.id: item.answer.version for item in edge.stub.ClassifyStream(requests, timeout=60)}
    assert [answers[each] for each in IDS] == EXPECTED


def test_the_standard_protocols_id_decides_too(client, image_input, pictures) -> None:
    answers = [client.infer("flowers", [image_input(pictures["daisy"])], request_id=each) for each in IDS]
    assert [int(answer.get_response().model_version) for answer in answers] == EXPECTED


def test_requests_without_an_id_fall_by_chance(edge, pictures) -> None:
    assert {edge.stub.Classify(pb.ClassifyRequest(image=pictures["daisy"])).version for _ in range(64)} == {1, 2}


def test_what_a_model_says_of_itself_is_the_stable_versions_every_time(client) -> None:
    stable = client.get_model_config("flowers", "1")
    assert stable != client.get_model_config("flowers", "2")
    assert all(client.get_model_config("flowers") == stable for _ in range(32))
    assert all(client.get_model_metadata("flowers") == client.get_model_metadata("flowers", "1") for _ in range(8))
