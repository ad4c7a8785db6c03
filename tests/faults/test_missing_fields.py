"""A request that is answered, sent again without each of its fields in turn: answered or refused, at once, in words."""

from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message

from anther.open_inference import open_inference_pb2 as oip
from anther.open_inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from anther.v1 import classifier_pb2 as anther
from anther.v1.classifier_pb2_grpc import ImageClassifierStub
from tests.faults.victim import PATIENCE_S

OK = "OK"
REFUSED = {"INVALID_ARGUMENT", "NOT_FOUND"}  # what a field that is not there may lead to
SIDE = 32  # of the test model's pictures

NAMED = {"name": "flowers", "version": "1"}
INPUT, OUTPUT = oip.ModelInferRequest.InferInputTensor, oip.ModelInferRequest.InferRequestedOutputTensor


def requests(picture: bytes) -> dict[str, Message]:
    """Method → a whole request, every field set that goes with the others."""
    one = {"image": picture, "model": "flowers", "version": 1, "top_k": 2, "id": "7"}
    classes = {"classification": oip.InferParameter(int64_param=2)}
    wanted = [OUTPUT(name="probabilities", parameters=classes), OUTPUT(name="logits")]
    infer = {"model_name": "flowers", "model_version": "1", "id": "7", "outputs": wanted}
    infer["parameters"] = {"timeout": oip.InferParameter(int64_param=60_000_000)}
    contents = oip.InferTensorContents(bytes_contents=[picture])
    image = INPUT(name="image", datatype="BYTES", shape=[1, 1], contents=contents)
    pixels = INPUT(name="pixels", datatype="UINT8", shape=[1, SIDE, SIDE, 3])
    return {
        "Classify": anther.ClassifyRequest(**one, label="stable"),
        "ClassifyStream": anther.ClassifyRequest(**one, label="stable"),
        "Explain": anther.ExplainRequest(**one, label="stable", class_label="tulips"),
        "ListModels": anther.ListModelsRequest(),
        "GetModel": anther.GetModelRequest(model="flowers", version=1, label="stable"),
        "ServerLive": oip.ServerLiveRequest(),
        "ServerReady": oip.ServerReadyRequest(),
        "ModelReady": oip.ModelReadyRequest(**NAMED),
        "ServerMetadata": oip.ServerMetadataRequest(),
        "ModelMetadata": oip.ModelMetadataRequest(**NAMED),
        "ModelInfer": oip.ModelInferRequest(**infer, inputs=[image]),
        "ModelStreamInfer": oip.ModelInferRequest(
            **infer, inputs=[pixels], raw_input_contents=[bytes(SIDE * SIDE * 3)]
        ),
        "ModelConfig": oip.ModelConfigRequest(**NAMED),
        "ModelStatistics": oip.ModelStatisticsRequest(**NAMED),
        "RepositoryIndex": oip.RepositoryIndexRequest(ready=True),
        "RepositoryModelLoad": oip.RepositoryModelLoadRequest(model_name="flowers"),
        "RepositoryModelUnload": oip.RepositoryModelUnloadRequest(model_name="trees"),
        "SystemSharedMemoryStatus": oip.SystemSharedMemoryStatusRequest(name="x"),
        "SystemSharedMemoryRegister": oip.SystemSharedMemoryRegisterRequest(name="x", key="y", offset=1, byte_size=1),
        "SystemSharedMemoryUnregister": oip.SystemSharedMemoryUnregisterRequest(name="x"),
        "CudaSharedMemoryStatus": oip.CudaSharedMemoryStatusRequest(name="x"),
        "CudaSharedMemoryRegister": oip.CudaSharedMemoryRegisterRequest(
            name="x", raw_handle=b"y", device_id=1, byte_size=1
        ),
        "CudaSharedMemoryUnregister": oip.CudaSharedMemoryUnregisterRequest(name="x"),
        "TraceSetting": oip.TraceSettingRequest(model_name="flowers"),
        "LogSettings": oip.LogSettingsRequest(),
    }


NOT_OFFERED = {name for name in requests(b"") if "SharedMemory" in name} | {"TraceSetting", "LogSettings"}


def without_each(message: Message) -> Iterator[tuple[str, Message]]:
    """The path of every field that is set, messages' own and lists' too, and a copy that lacks it."""
    for field, value in message.ListFields():
        copy = type(message).FromString(message.SerializeToString())
        copy.ClearField(field.name)
        yield field.name, copy
        if field.message_type is None or field.message_type.GetOptions().map_entry:
            continue
        for index, part in enumerate(value if field.is_repeated else [value]):
            for path, shorter in without_each(part):
                copy = type(message).FromString(message.SerializeToString())
                target = getattr(copy, field.name)
                (target[index] if field.is_repeated else target).CopyFrom(shorter)
                yield f"{field.name}.{path}", copy


@pytest.fixture(scope="module")
def stubs(start_victim, publish_bundle, tmp_path_factory) -> Iterator[list[Any]]:
    """Of both services of a server whose clients may load and unload models."""
    root = tmp_path_factory.mktemp("models")
    publish_bundle(root)
    publish_bundle(root, "trees")
    with start_victim("--control", "--default-model", "flowers", models=root).channel() as channel:
        yield [ImageClassifierStub(channel), GRPCInferenceServiceStub(channel)]


def end_of(stubs: list[Any], method: str, request: Message) -> str:
    """The name of the status, also where it came as an item of a stream."""
    call = next(getattr(stub, method) for stub in stubs if hasattr(stub, method))
    try:
        if method not in ("ClassifyStream", "ModelStreamInfer"):
            call(request, timeout=PATIENCE_S)
            return OK
        (answer,) = call(iter([request]), timeout=PATIENCE_S)
    except grpc.RpcError as error:
        return error.code().name
    if method == "ModelStreamInfer":
        return "INVALID_ARGUMENT" if answer.error_message else OK  # its items have sentences alone
    codes = {code.value[0]: code.name for code in grpc.StatusCode}
    return codes[answer.error.code] if answer.HasField("error") else OK


@pytest.mark.parametrize("method", list(requests(b"")))
def test_whatever_is_missing_is_answered_or_named(stubs, pictures, method: str) -> None:
    whole = requests(pictures["daisy"])[method]
    assert end_of(stubs, method, whole) == ("UNIMPLEMENTED" if method in NOT_OFFERED else OK)
    found = {path: end_of(stubs, method, shorter) for path, shorter in without_each(whole)}
    expected = {"UNIMPLEMENTED"} if method in NOT_OFFERED else {OK, *REFUSED}
    assert {path: end for path, end in found.items() if end not in expected} == {}


def test_every_method_of_both_services_is_asked() -> None:
    files = (anther.DESCRIPTOR, oip.DESCRIPTOR)
    services = [service for file in files for service in file.services_by_name.values()]
    assert {method.name for service in services for method in service.methods} == requests(b"").keys()


def test_a_picture_that_is_missing_is_named_everywhere(stubs, pictures) -> None:
    for method, field in (
        ("Classify", "image"),
        ("ClassifyStream", "image"),
        ("Explain", "image"),
        ("ModelInfer", "inputs"),
    ):
        whole = requests(pictures["daisy"])[method]
        shorter = dict(without_each(whole))[field]
        assert end_of(stubs, method, shorter) == "INVALID_ARGUMENT"
