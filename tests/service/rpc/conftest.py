"""A server and a picture to send to it."""

import pytest

from anther.v1 import classifier_pb2 as pb
from bundle.policy import edit_policy


@pytest.fixture(scope="session")
def red(make_picture) -> pb.ClassifyRequest:
    return pb.ClassifyRequest(image=make_picture((255, 0, 0)))


@pytest.fixture
def edge(start_edge):
    return start_edge()


@pytest.fixture
def start_canary(tmp_path, publish_bundle, start_edge):
    """`start_canary(share)`: version 1 is stable; version 2 gets this share of the requests that ask for neither."""

    def start(share: float):
        publish_bundle(tmp_path)
        publish_bundle(tmp_path, seed=1)
        edit_policy(tmp_path, "flowers", lambda policy: policy.with_canary(2, share))
        return start_edge(tmp_path)

    return start
