"""A server and a picture to send to it."""

import pytest

from service.rpc.pb.anther.v1 import classifier_pb2 as pb


@pytest.fixture(scope="session")
def red(make_picture) -> pb.ClassifyRequest:
    return pb.ClassifyRequest(image=make_picture((255, 0, 0)))


@pytest.fixture
def edge(start_edge):
    return start_edge()
