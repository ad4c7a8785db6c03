"""Messages become JSON by the names of the protocol, and outputs come in the form that was asked for."""

import json

import numpy as np
from google.protobuf import json_format

from anther.open_inference import open_inference_pb2 as pb
from service.http.inference.requests import Form
from service.http.inference.responses import as_json, infer_response
from service.rpc.inference.tensors import join

LOGITS = np.array([[0.1, -3e38], [1e-45, 2]], "<f4")
CLASSES = [b"0.1:0:daisy", "2.0:1:Märzbecher".encode()]


def response(**fields) -> pb.ModelInferResponse:
    message = pb.ModelInferResponse(model_name="flowers", model_version="1", **fields)
    message.outputs.add(name="logits", datatype="FP32", shape=(2, 2))
    message.outputs.add(name="probabilities", datatype="BYTES", shape=(2, 1))
    message.raw_output_contents.extend([LOGITS.tobytes(), join(CLASSES)])
    return message


def test_outputs_in_json_have_the_same_values() -> None:
    encoded = infer_response(response(), Form())
    found = json.loads(encoded.data)
    assert encoded.header_length is None
    assert found == {
        "model_name": "flowers",
        "model_version": "1",
        "outputs": [
            {"name": "logits", "datatype": "FP32", "shape": [2, 2], "data": LOGITS.ravel().tolist()},
            {
                "name": "probabilities",
                "datatype": "BYTES",
                "shape": [2, 1],
                "data": [each.decode() for each in CLASSES],
            },
        ],
    }
    assert np.array_equal(np.array(found["outputs"][0]["data"], np.float32), LOGITS.ravel())


def test_binary_outputs_follow_the_json_in_their_order() -> None:
    encoded = infer_response(response(), Form(all=True))
    header = json.loads(encoded.data[: encoded.header_length])
    assert [output["parameters"] for output in header["outputs"]] == [
        {"binary_data_size": 16},
        {"binary_data_size": len(join(CLASSES))},
    ]
    assert encoded.data[encoded.header_length :] == LOGITS.tobytes() + join(CLASSES)


def test_forms_may_be_mixed_and_the_length_counts_bytes() -> None:
    encoded = infer_response(response(id="Märzbecher"), Form(named={"logits": True}))
    header = json.loads(encoded.data[: encoded.header_length])
    assert header["id"] == "Märzbecher"
    assert [sorted(output) for output in header["outputs"]] == [
        ["datatype", "name", "parameters", "shape"],
        ["data", "datatype", "name", "shape"],
    ]
    assert encoded.data[encoded.header_length :] == LOGITS.tobytes()


def test_parameters_come_back_as_they_were() -> None:
    parameters = {
        "a": pb.InferParameter(uint64_param=2**64 - 1),
        "b": pb.InferParameter(double_param=0.5),
        "c": pb.InferParameter(bool_param=False),
        "d": pb.InferParameter(),
    }
    found = json.loads(infer_response(response(parameters=parameters), Form()).data)
    assert found["parameters"] == {"a": 2**64 - 1, "b": 0.5, "c": False, "d": None}


def test_numbers_are_numbers_and_enumerations_have_names() -> None:
    config = pb.ModelConfig(
        name="flowers",
        input=[pb.ModelInput(name="image", data_type=pb.TYPE_STRING, dims=[1])],
        version_policy=pb.ModelVersionPolicy(specific=pb.ModelVersionPolicy.Specific(versions=[2**40])),
        parameters={"threshold": pb.ModelParameter(string_value="0.7")},
    )
    found = as_json(config)
    assert found["version_policy"] == {"specific": {"versions": [2**40]}}
    assert found["input"] == [
        {"name": "image", "data_type": "TYPE_STRING", "format": "FORMAT_NONE", "dims": [1], "optional": False}
    ]
    assert (found["max_batch_size"], found["parameters"]) == (0, {"threshold": {"string_value": "0.7"}})
    assert "dynamic_batching" not in found
    assert json_format.ParseDict(json.loads(json.dumps(found)), pb.ModelConfig()) == config
