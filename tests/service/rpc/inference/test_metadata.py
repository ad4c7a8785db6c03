"""What the server says about itself and its models is true: a client that follows it gets answers."""

import dataclasses
import json
from importlib import metadata as installed

import numpy as np
import pytest
import tritonclient.grpc as triton

from anther.open_inference import open_inference_pb2 as pb
from anther.open_inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from bundle.preprocessing import Limits
from service.rpc.inference.config import Bounds, model_config

NUMPY = {"BYTES": np.object_, "UINT8": np.uint8, "FP32": np.float32}


class Gpu:
    """An engine as a GPU has it."""

    provider = "CUDAExecutionProvider"
    precision, batch_sizes = "fp32", (1, 4, 8)


def test_the_server_names_itself_its_extensions_and_its_message_limit(start_edge) -> None:
    edge = start_edge(max_image_bytes=1_000_000)
    with triton.InferenceServerClient(f"127.0.0.1:{edge.port}") as client:
        found = client.get_server_metadata()
        limit = int(client.get_model_config("flowers").config.parameters["max_request_bytes"].string_value)
    assert (found.name, found.version) == ("anther", installed.version("anther"))
    assert {"classification", "model_configuration", "model_repository", "statistics"} <= set(found.extensions)
    assert f"max_request_bytes({limit})" in found.extensions
    assert limit > 1_000_000


def test_the_message_limit_is_the_one_that_holds(start_edge, image_request, failure_of) -> None:
    stub = GRPCInferenceServiceStub(start_edge(max_image_bytes=1000).channel)
    config = stub.ModelConfig(pb.ModelConfigRequest()).config
    limit = int(config.parameters["max_request_bytes"].string_value)
    room = limit - image_request(b"x" * limit).ByteSize() + limit
    assert failure_of(lambda: stub.ModelInfer(image_request(b"x" * room))).code == "INVALID_ARGUMENT"
    assert failure_of(lambda: stub.ModelInfer(image_request(b"x" * (room + 1)))).code == "RESOURCE_EXHAUSTED"


def test_a_model_is_described_by_its_tensors(client) -> None:
    found = client.get_model_metadata("flowers")
    assert (found.name, list(found.versions), found.platform) == ("flowers", ["1"], "onnxruntime_onnx")
    assert {each.name: (each.datatype, list(each.shape)) for each in found.inputs} == {
        "image": ("BYTES", [-1, 1]),
        "pixels": ("UINT8", [-1, 32, 32, 3]),
    }
    assert {each.name: (each.datatype, list(each.shape)) for each in found.outputs} == {
        "probabilities": ("FP32", [-1, 3]),
        "logits": ("FP32", [-1, 3]),
        "evidence": ("FP32", [-1, 3, -1, -1]),
    }


@pytest.mark.parametrize("name", ["image", "pixels"])
def test_a_client_that_follows_the_description_gets_what_it_says(client, red, name: str) -> None:
    found = client.get_model_metadata("flowers")
    (described,) = (each for each in found.inputs if each.name == name)
    shape = [2 if size == -1 else size for size in described.shape]
    array = np.full(shape, red.image if name == "image" else 7, NUMPY[described.datatype])
    tensor = triton.InferInput(name, shape, described.datatype).set_data_from_numpy(array)
    answer = client.infer(
        "flowers", [tensor], outputs=[triton.InferRequestedOutput(each.name) for each in found.outputs]
    )
    for output in found.outputs:
        result = answer.as_numpy(output.name)
        assert result.dtype == NUMPY[output.datatype]
        assert len(result.shape) == len(output.shape)
        assert all(size in (-1, real) for size, real in zip(output.shape, result.shape, strict=True))


def test_the_configuration_agrees_with_the_metadata(client) -> None:
    config, found = client.get_model_config("flowers").config, client.get_model_metadata("flowers")
    assert (config.name, config.platform, config.backend) == ("flowers", found.platform, "onnxruntime")
    assert config.max_batch_size == 128
    assert [(each.name, list(each.dims)) for each in config.input] == [
        (each.name, list(each.shape[1:])) for each in found.inputs
    ]
    assert [(each.name, list(each.dims)) for each in config.output] == [
        (each.name, list(each.shape[1:])) for each in found.outputs
    ]
    assert [pb.DataType.Name(each.data_type) for each in config.input] == ["TYPE_STRING", "TYPE_UINT8"]
    assert {pb.DataType.Name(each.data_type) for each in config.output} == {"TYPE_FP32"}
    assert all(each.optional for each in config.input)
    assert list(config.version_policy.specific.versions) == [1]
    assert not config.model_transaction_policy.decoupled


def test_the_configuration_tells_limits_and_what_the_model_is(client, edge) -> None:
    parameters = {
        name: value.string_value for name, value in client.get_model_config("flowers").config.parameters.items()
    }
    manifest = edge.classifier.registry.find().bundle.manifest
    assert json.loads(parameters["labels"]) == ["daisy", "tulips", "roses"]
    assert (parameters["max_image_bytes"], parameters["max_image_pixels"]) == ("20000000", "50000000")
    assert (parameters["architecture"], parameters["precision"]) == ("colours", "fp32")
    assert parameters["sha256"] == manifest.files["model.onnx"]
    assert parameters["execution_provider"] == "CPUExecutionProvider"
    assert float(parameters["threshold"]) == manifest.calibration.threshold


def test_batching_is_told_where_the_device_gains_by_it(edge) -> None:
    model, bounds = edge.classifier.registry.find(), Bounds(16, 1000, Limits(1000, 1000))
    on_cpu = model_config(model, [1], bounds)
    assert on_cpu.instance_group[0].kind == pb.ModelInstanceGroup.KIND_CPU
    assert not on_cpu.HasField("dynamic_batching")
    on_gpu = model_config(dataclasses.replace(model, engine=Gpu()), [1], bounds)
    assert (on_gpu.instance_group[0].kind, list(on_gpu.instance_group[0].gpus)) == (pb.ModelInstanceGroup.KIND_GPU, [0])
    assert list(on_gpu.dynamic_batching.preferred_batch_size) == [4, 8]


@pytest.mark.parametrize("call", ["ModelMetadata", "ModelConfig"])
@pytest.mark.parametrize(
    ("name", "version", "code"),
    [("trees", "", "NOT_FOUND"), ("flowers", "2", "NOT_FOUND"), ("flowers", "x", "INVALID_ARGUMENT")],
)
def test_what_is_not_there_is_not_described(stub, failure_of, call: str, name: str, version: str, code: str) -> None:
    request = getattr(pb, f"{call}Request")(name=name, version=version)
    assert failure_of(lambda: getattr(stub, call)(request)).code == code


def test_readiness_is_an_answer_and_no_error(client, stub, edge) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    ready = {
        ("flowers", ""): True,
        ("flowers", "1"): True,
        ("flowers", "2"): False,
        ("trees", ""): False,
    }
    assert {which: client.is_model_ready(*which) for which in ready} == ready
    assert stub.ModelReady(pb.ModelReadyRequest()).ready
    edge.classifier.drain()
    assert client.is_server_live()
    assert not client.is_server_ready()
    assert not client.is_model_ready("flowers")
