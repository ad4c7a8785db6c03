"""Triton's HTTP client with the face of its gRPC client, so that the same tests ask over both."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tritonclient.grpc as over_grpc
import tritonclient.http as over_http
from google.protobuf import json_format
from tritonclient.utils import InferenceServerException, deserialize_bytes_tensor

from anther.open_inference import open_inference_pb2 as pb

CODES = {
    "400": "INVALID_ARGUMENT",
    "403": "PERMISSION_DENIED",
    "404": "NOT_FOUND",
    "413": "INVALID_ARGUMENT",
    "415": "INVALID_ARGUMENT",
    "500": "INTERNAL",
    "501": "UNIMPLEMENTED",
    "503": "UNAVAILABLE",
}


class Result:
    def __init__(self, result: over_http.InferResult) -> None:
        self.as_numpy = result.as_numpy
        self._found = result.get_response()

    def get_response(self) -> pb.ModelInferResponse:
        outputs = [{name: output[name] for name in ("name", "datatype", "shape")} for output in self._found["outputs"]]
        message = json_format.ParseDict({**self._found, "outputs": outputs, "parameters": {}}, pb.ModelInferResponse())
        message.raw_output_contents.extend(self.as_numpy(output.name).tobytes() for output in message.outputs)
        return message


class HttpClient:
    """Messages in place of JSON, and gRPC's codes in place of HTTP's. Everything else is the client's own."""

    def __init__(self, target: str) -> None:
        self._client = over_http.InferenceServerClient(target)

    def __enter__(self) -> "HttpClient":
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            with _codes():
                return getattr(self._client, name)(*arguments, **options)

        return call

    def infer(self, model: str, inputs: Sequence[Any], outputs: Sequence[Any] | None = None, **options: Any) -> Result:
        asked = None if outputs is None else [_output(output) for output in outputs]
        with _codes():
            return Result(self._client.infer(model, [_input(each) for each in inputs], outputs=asked, **options))

    def get_server_metadata(self) -> pb.ServerMetadataResponse:
        return json_format.ParseDict(self._client.get_server_metadata(), pb.ServerMetadataResponse())

    def get_model_metadata(self, *which: str) -> pb.ModelMetadataResponse:
        return json_format.ParseDict(self._client.get_model_metadata(*which), pb.ModelMetadataResponse())

    def get_model_config(self, *which: str) -> pb.ModelConfigResponse:
        config = json_format.ParseDict(self._client.get_model_config(*which), pb.ModelConfig())
        return pb.ModelConfigResponse(config=config)

    def get_inference_statistics(self, *which: str) -> pb.ModelStatisticsResponse:
        return json_format.ParseDict(self._client.get_inference_statistics(*which), pb.ModelStatisticsResponse())


@contextlib.contextmanager
def _codes() -> Iterator[None]:
    try:
        yield
    except InferenceServerException as error:
        code = CODES[error.status()]
        raise InferenceServerException(error.message(), f"StatusCode.{code}") from error


def _input(given: over_grpc.InferInput) -> over_http.InferInput:
    tensor, raw = over_http.InferInput(given.name(), list(given.shape()), given.datatype()), given._get_content()
    if raw is None:
        parameters = given._get_tensor().parameters
        size = parameters["shared_memory_byte_size"].int64_param
        return tensor.set_shared_memory(parameters["shared_memory_region"].string_param, size)
    if given.datatype() == "BYTES":
        return tensor.set_data_from_numpy(deserialize_bytes_tensor(raw).reshape(given.shape()))
    return tensor.set_data_from_numpy(np.frombuffer(raw, np.uint8).reshape(given.shape()))


def _output(given: over_grpc.InferRequestedOutput) -> over_http.InferRequestedOutput:
    parameters = given._get_tensor().parameters
    classes = parameters["classification"].int64_param if "classification" in parameters else 0
    output = over_http.InferRequestedOutput(given.name(), class_count=classes)
    if "shared_memory_region" in parameters:
        output.set_shared_memory(parameters["shared_memory_region"].string_param, 1)
    return output
