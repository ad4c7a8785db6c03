"""Connections that classify pictures, in each of the four ways that the service has, under TLS and with a token."""

import http.client
import json
import ssl
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np

from anther.open_inference import open_inference_pb2 as oip
from anther.open_inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from anther.v1 import classifier_pb2 as pb
from anther.v1.classifier_pb2_grpc import ImageClassifierStub
from tests.faults.victim import PATIENCE_S, Victim

MODEL = "flowers"
ALL = 1000  # predictions: more than there are classes
Probabilities = tuple[float, ...]


@dataclass(frozen=True)
class Found:
    """The id of the request that an answer is for, and the probabilities in the order of the classes."""

    id: str
    probabilities: Probabilities


class CallEnded(Exception):
    """Without an answer. Its text is the code, CANCELLED where the caller left."""


class Dialect(ABC):
    """A connection of its own. `protocol` and `method` are what metrics call its calls."""

    protocol: str
    method: str

    @abstractmethod
    def __init__(self, victim: Victim, authority: bytes, token: str) -> None: ...

    @abstractmethod
    def ask(self, picture: bytes, request_id: str, leave_s: float | None) -> Found:
        """Gives the call up after `leave_s` seconds where that is not None. Raises `CallEnded`."""

    @abstractmethod
    def close(self) -> None: ...


class _Rpc(Dialect):
    protocol = "grpc"

    def __init__(self, victim: Victim, authority: bytes, token: str) -> None:
        credentials = grpc.ssl_channel_credentials(authority)
        self._channel = grpc.secure_channel(victim.target, credentials, [("grpc.use_local_subchannel_pool", 1)])
        self._metadata = (("authorization", f"Bearer {token}"),)
        self._begin = self._method(self._channel).future

    def ask(self, picture: bytes, request_id: str, leave_s: float | None) -> Found:
        call = self._begin(self._request(picture, request_id), timeout=PATIENCE_S, metadata=self._metadata)
        if leave_s is not None:
            time.sleep(leave_s)
            call.cancel()
        try:
            return self._found(call.result())
        except (grpc.RpcError, grpc.FutureCancelledError) as error:
            raise CallEnded(call.code().name) from error

    def close(self) -> None:
        self._channel.close()

    @abstractmethod
    def _method(self, channel: grpc.Channel) -> Any: ...

    @abstractmethod
    def _request(self, picture: bytes, request_id: str) -> Any: ...

    @abstractmethod
    def _found(self, answer: Any) -> Found: ...


class Anther(_Rpc):
    """anther.v1 over gRPC."""

    method = "Classify"

    def _method(self, channel: grpc.Channel) -> Any:
        return ImageClassifierStub(channel).Classify

    def _request(self, picture: bytes, request_id: str) -> Any:
        return pb.ClassifyRequest(image=picture, id=request_id, top_k=ALL)

    def _found(self, answer: Any) -> Found:
        return Found(answer.id, _in_order({each.index: each.probability for each in answer.predictions}))


class OpenInference(_Rpc):
    """The Open Inference Protocol over gRPC."""

    method = "ModelInfer"

    def _method(self, channel: grpc.Channel) -> Any:
        return GRPCInferenceServiceStub(channel).ModelInfer

    def _request(self, picture: bytes, request_id: str) -> Any:
        tensor = oip.ModelInferRequest.InferInputTensor(name="image", datatype="BYTES", shape=(1, 1))
        output = oip.ModelInferRequest.InferRequestedOutputTensor(name="probabilities")
        raw = [_element(picture)]
        return oip.ModelInferRequest(
            model_name=MODEL, id=request_id, inputs=[tensor], outputs=[output], raw_input_contents=raw
        )

    def _found(self, answer: Any) -> Found:
        return Found(answer.id, tuple(np.frombuffer(answer.raw_output_contents[0], "<f4").tolist()))


class _Http(Dialect):
    protocol = "http"

    def __init__(self, victim: Victim, authority: bytes, token: str) -> None:
        self._host = victim.http.removeprefix("https://")
        self._context = ssl.create_default_context(cadata=authority.decode())
        self._headers = {"Authorization": f"Bearer {token}"}
        self._connection = self._connect()

    def ask(self, picture: bytes, request_id: str, leave_s: float | None) -> Found:
        path, body, headers = self._request(picture, request_id)
        try:
            self._connection.request("POST", path, body, {**self._headers, **headers})
            if leave_s is not None:
                time.sleep(leave_s)
                self._connection.close()
                raise CallEnded("CANCELLED")  # what the server sends is not read, and the next call connects anew
            answer = self._connection.getresponse()
            data = answer.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise CallEnded(type(error).__name__) from error
        if answer.status != 200:
            raise CallEnded(f"{answer.status} {data[:200]!r}")
        return self._found(answer.headers, json.loads(data))

    def close(self) -> None:
        self._connection.close()

    def _connect(self) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection(self._host, timeout=PATIENCE_S, context=self._context)

    @abstractmethod
    def _request(self, picture: bytes, request_id: str) -> tuple[str, bytes, dict[str, str]]: ...

    @abstractmethod
    def _found(self, headers: Mapping[str, str], content: Any) -> Found: ...


class V1(_Http):
    """/v1 over HTTP/1.1."""

    method = "Classify"

    def _request(self, picture: bytes, request_id: str) -> tuple[str, bytes, dict[str, str]]:
        return f"/v1/classify?top_k={ALL}", picture, {"X-Request-Id": request_id}

    def _found(self, headers: Mapping[str, str], content: Any) -> Found:
        predictions = {each["index"]: each["probability"] for each in content["predictions"]}
        return Found(headers["X-Request-Id"], _in_order(predictions))


class V2(_Http):
    """/v2 over HTTP/1.1: pictures as binary data, answers in JSON."""

    method = "ModelInfer"

    def _request(self, picture: bytes, request_id: str) -> tuple[str, bytes, dict[str, str]]:
        binary = _element(picture)
        tensor = {
            "name": "image",
            "shape": [1, 1],
            "datatype": "BYTES",
            "parameters": {"binary_data_size": len(binary)},
        }
        header = json.dumps({"id": request_id, "inputs": [tensor], "outputs": [{"name": "probabilities"}]}).encode()
        length = {"Inference-Header-Content-Length": str(len(header))}
        return f"/v2/models/{MODEL}/infer", header + binary, length

    def _found(self, headers: Mapping[str, str], content: Any) -> Found:
        return Found(content["id"], tuple(content["outputs"][0]["data"]))


DIALECTS: dict[str, type[Dialect]] = {"anther.v1": Anther, "open-inference": OpenInference, "v1": V1, "v2": V2}


def _element(picture: bytes) -> bytes:
    """One element of a BYTES tensor."""
    return len(picture).to_bytes(4, "little") + picture


def _in_order(probabilities: dict[int, float]) -> Probabilities:
    return tuple(probabilities[index] for index in range(len(probabilities)))
