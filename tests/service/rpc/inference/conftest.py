"""Clients as users have them: Triton's own, and a stub without any help."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tritonclient.grpc as triton

from anther.open_inference import open_inference_pb2 as pb
from anther.open_inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from anther.v1 import classifier_pb2
from bundle.preprocessing import DEFAULT_LIMITS, decode
from tests.service.conftest import Edge
from tests.service.rpc.inference.over_http import HttpClient

Client = triton.InferenceServerClient | HttpClient

COLOURS = {(255, 0, 0): "PNG", (0, 255, 0): "JPEG", (0, 0, 255): "WEBP", (250, 30, 30): "BMP", (10, 10, 10): "TIFF"}


@pytest.fixture
def stub(edge) -> GRPCInferenceServiceStub:
    return GRPCInferenceServiceStub(edge.channel)


@pytest.fixture(params=["grpc", "http"])
def connect(request: pytest.FixtureRequest) -> Callable[[Edge], Client]:
    """`connect(edge)`: Triton's client over gRPC, and in a second test over HTTP."""
    if request.param == "grpc":
        return lambda edge: triton.InferenceServerClient(f"127.0.0.1:{edge.port}")
    return lambda edge: HttpClient(f"127.0.0.1:{edge.http.port}")


@pytest.fixture
def client(connect: Callable[[Edge], Client], edge: Edge) -> Iterator[Client]:
    with connect(edge) as client:
        yield client


@pytest.fixture(scope="session")
def image_input() -> Callable[..., triton.InferInput]:
    """`image_input(*pictures, shape=)` as Triton's client sends it."""

    def make(*pictures: bytes, shape: tuple[int, ...] | None = None) -> triton.InferInput:
        array = np.array(pictures, dtype=object).reshape(shape or (len(pictures), 1))
        return triton.InferInput("image", array.shape, "BYTES").set_data_from_numpy(array)

    return make


@pytest.fixture(scope="session")
def pixels_input() -> Callable[[npt.NDArray[np.uint8]], triton.InferInput]:
    def make(pixels: npt.NDArray[np.uint8]) -> triton.InferInput:
        return triton.InferInput("pixels", pixels.shape, "UINT8").set_data_from_numpy(pixels)

    return make


@pytest.fixture(scope="session")
def image_request() -> Callable[..., pb.ModelInferRequest]:
    """`image_request(*pictures, shape=, datatype=, outputs=, …)` with its tensor in the message's own fields."""

    def make(
        *pictures: bytes,
        shape: tuple[int, ...] | None = None,
        datatype: str = "BYTES",
        outputs: tuple[str, ...] = (),
        **fields: Any,
    ) -> pb.ModelInferRequest:
        tensor = pb.ModelInferRequest.InferInputTensor(
            name="image",
            datatype=datatype,
            shape=(len(pictures),) if shape is None else shape,
            contents=pb.InferTensorContents(bytes_contents=pictures),
        )
        wanted = [pb.ModelInferRequest.InferRequestedOutputTensor(name=name) for name in outputs]
        return pb.ModelInferRequest(inputs=[tensor], outputs=wanted, **fields)

    return make


@pytest.fixture
def classified(edge) -> Callable[[bytes], npt.NDArray[np.float32]]:
    """`classified(picture)`: the probabilities that anther.v1 gives, in output order."""

    def classify(picture: bytes) -> npt.NDArray[np.float32]:
        answer = edge.stub.Classify(classifier_pb2.ClassifyRequest(image=picture, top_k=1000))
        found = {prediction.index: prediction.probability for prediction in answer.predictions}
        return np.array([found[index] for index in range(len(found))], np.float32)

    return classify


@pytest.fixture(scope="session")
def colourful(make_picture) -> list[bytes]:
    """Five pictures that get different answers, in several formats."""
    return [make_picture(colour, format_name=name) for colour, name in COLOURS.items()]


@pytest.fixture
def prepared(edge) -> Callable[[list[bytes]], npt.NDArray[np.uint8]]:
    """`prepared(pictures)`: pixels as the model wants them."""
    preprocessing = edge.classifier.registry.find().bundle.manifest.preprocessing

    def prepare(pictures: list[bytes]) -> npt.NDArray[np.uint8]:
        return np.stack([preprocessing.resize_and_crop(decode(each, DEFAULT_LIMITS)) for each in pictures])

    return prepare
