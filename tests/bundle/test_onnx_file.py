"""External data is found wherever ONNX allows a tensor, and nothing else is taken for it."""

import random
import tracemalloc
from collections.abc import Callable

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import AttributeProto, ModelProto, SparseTensorProto, TensorProto, TrainingInfoProto, helper, numpy_helper

from bundle.onnx_file import _PATHS, has_external_data


def tensor(name: str = "w", external: bool = False) -> TensorProto:
    made = numpy_helper.from_array(np.arange(6, dtype=np.float32), name)
    if external:
        made.ClearField("raw_data")
        made.data_location = TensorProto.EXTERNAL
        made.external_data.add(key="location", value="weights.bin")
    return made


def graph(external: bool = False, name: str = "graph") -> onnx.GraphProto:
    output = helper.make_tensor_value_info(f"{name}_out", TensorProto.FLOAT, [6])
    node = helper.make_node("Identity", [f"{name}_w"], [f"{name}_out"])
    return helper.make_graph([node], name, [], [output], [tensor(f"{name}_w", external)])


def model(**parts: object) -> ModelProto:
    return helper.make_model(graph(), opset_imports=[helper.make_opsetid("", 18)], **parts)


def sparse(external: bool, indices: bool) -> SparseTensorProto:
    made = SparseTensorProto(dims=[6])
    made.values.CopyFrom(tensor("values", external and not indices))
    made.indices.CopyFrom(tensor("indices", external and indices))
    return made


def attribute(**value: object) -> AttributeProto:
    made = AttributeProto(name="value")
    for key, item in value.items():
        field = getattr(made, key)
        if isinstance(item, list):
            field.extend(item)
        else:
            field.CopyFrom(item)
    return made


def with_node(*attributes: AttributeProto) -> ModelProto:
    made = model()
    made.graph.node.add(op_type="Constant", output=["c"]).attribute.extend(attributes)
    return made


def in_initializer(external: bool) -> ModelProto:
    made = model()
    made.graph.initializer.append(tensor("second", external))
    return made


def in_sparse_initializer(external: bool, indices: bool = False) -> ModelProto:
    made = model()
    made.graph.sparse_initializer.append(sparse(external, indices))
    return made


def in_branch(external: bool) -> ModelProto:
    return with_node(attribute(g=graph(False, "then")), attribute(g=graph(external, "else")))


def in_nested_branch(external: bool) -> ModelProto:
    inner = graph(name="outer")
    inner.node.add(op_type="If").attribute.append(attribute(g=graph(external, "inner")))
    return with_node(attribute(g=inner))


def in_function(external: bool, default: bool = False) -> ModelProto:
    made = model()
    function = made.functions.add(name="f", domain="test")
    if default:
        function.attribute_proto.append(attribute(t=tensor(external=external)))
    else:
        function.node.add(op_type="Constant").attribute.append(attribute(t=tensor(external=external)))
    return made


def in_training(external: bool, initialization: bool) -> ModelProto:
    made, info = model(), TrainingInfoProto()
    (info.initialization if initialization else info.algorithm).CopyFrom(graph(external))
    made.training_info.append(info)
    return made


PLACES: dict[str, Callable[[bool], ModelProto]] = {
    "initializer": in_initializer,
    "sparse initializer, values": in_sparse_initializer,
    "sparse initializer, indices": lambda external: in_sparse_initializer(external, indices=True),
    "node attribute": lambda external: with_node(attribute(t=tensor(external=external))),
    "node attribute, list": lambda external: with_node(attribute(tensors=[tensor(), tensor(external=external)])),
    "node attribute, sparse": lambda external: with_node(attribute(sparse_tensor=sparse(external, indices=False))),
    "node attribute, sparse list": lambda external: with_node(
        attribute(sparse_tensors=[sparse(external, indices=True)])
    ),
    "subgraph of If": in_branch,
    "subgraph, list": lambda external: with_node(attribute(graphs=[graph(), graph(external)])),
    "subgraph of a subgraph": in_nested_branch,
    "function": in_function,
    "function, default of an attribute": lambda external: in_function(external, default=True),
    "training, initialization": lambda external: in_training(external, initialization=True),
    "training, algorithm": lambda external: in_training(external, initialization=False),
}


@pytest.mark.parametrize("place", PLACES)
def test_external_data_is_found_in(place: str) -> None:
    assert has_external_data(PLACES[place](True).SerializeToString())


@pytest.mark.parametrize("place", PLACES)
def test_a_self_contained_model_is_passed_with_a_tensor_in(place: str) -> None:
    assert not has_external_data(PLACES[place](False).SerializeToString())


def test_every_path_to_a_tensor_that_this_onnx_knows_has_a_place_here() -> None:
    """A newer ONNX may keep tensors where none were; then this test says so."""
    messages = {"ModelProto", "TrainingInfoProto", "GraphProto", "FunctionProto", "NodeProto", "AttributeProto"}
    tensors = {"TensorProto", "SparseTensorProto"}
    found = {
        (name, field.number)
        for name in messages | {"SparseTensorProto"}
        for field in getattr(onnx, name).DESCRIPTOR.fields
        if field.message_type is not None and field.message_type.name in messages | tensors
    }
    names = {"Model": "ModelProto", "Training": "TrainingInfoProto"}
    assert found == {(names.get(kind, f"{kind}Proto"), number) for kind, paths in _PATHS.items() for number in paths}


@pytest.mark.parametrize("part", ["location", "entries"])
def test_either_mark_of_external_data_is_enough(part: str) -> None:
    made = model()
    if part == "location":
        made.graph.initializer[0].data_location = TensorProto.EXTERNAL
    else:
        made.graph.initializer[0].external_data.add(key="location", value="weights.bin")
    assert has_external_data(made.SerializeToString())


def test_a_tensor_that_says_default_is_inside() -> None:
    made = model()
    made.graph.initializer[0].data_location = TensorProto.DEFAULT
    assert not has_external_data(made.SerializeToString())


def test_what_onnx_itself_saves_with_external_data_is_found(tmp_path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(model(), path, save_as_external_data=True, size_threshold=0)
    assert has_external_data(path.read_bytes())


def test_the_model_of_a_bundle_is_self_contained(make_bundle, tmp_path) -> None:
    assert not has_external_data((make_bundle(tmp_path / "1") / "model.onnx").read_bytes())


def test_the_same_numbers_in_other_messages_mean_nothing() -> None:
    """Field 14 and 13 of a graph, and 14 of a model, are quantization, value infos and metadata."""
    made = model(doc_string="14", producer_name="13")
    made.metadata_props.add(key="location", value="weights.bin")
    made.graph.value_info.add(name="location")
    made.graph.quantization_annotation.add(tensor_name="w")
    assert not has_external_data(made.SerializeToString())


def test_numbers_of_every_width_are_passed_over() -> None:
    """64-bit and 32-bit fields, which ONNX has in attributes and unpacked lists."""
    made = with_node(AttributeProto(name="f", f=1.5), AttributeProto(name="i", i=-1), AttributeProto(name="s", s=b"x"))
    unknown_fixed64 = bytes([(100 << 3 | 1) & 0x7F | 0x80, 100 << 3 >> 7]) + b"\1" * 8
    assert not has_external_data(made.SerializeToString() + unknown_fixed64)


# Broken protobuf


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x3a", "ends inside a number"),
        (b"\x3a\x05ab", "field 7 runs 3 bytes past the end"),
        (b"\x80", "ends inside a number"),
        (b"\x08" + b"\xff" * 11, "more than ten bytes"),
        (b"\x0b", "wire type 3"),
        (b"\x0c", "wire type 4"),
        (b"\x0f", "wire type 7"),
        (b"\x09\0\0", "field 1 runs 6 bytes past the end"),
        (b"\x0d\0\0", "field 1 runs 2 bytes past the end"),
    ],
    ids=lambda item: item if isinstance(item, str) else item.hex()[:12],
)
def test_broken_protobuf_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        has_external_data(data)


def test_every_truncation_is_refused_or_ends_between_two_fields() -> None:
    """Protobuf has no end mark; what is cut off between fields is the digest's to find."""
    data = in_nested_branch(False).SerializeToString()
    refused = 0
    for length in range(1, len(data)):
        try:
            assert not has_external_data(data[:length])
        except ValueError:
            refused += 1
    assert refused > len(data) * 0.9


@given(st.binary(max_size=200))
def test_any_bytes_give_an_answer_or_a_value_error(data: bytes) -> None:
    try:
        found = has_external_data(data)
    except ValueError:
        return
    assert found in (True, False)


def test_any_damage_gives_an_answer_or_a_value_error() -> None:
    generator = random.Random(0)
    originals = [PLACES[place](external).SerializeToString() for place in PLACES for external in (True, False)]
    answers = {True: 0, False: 0, None: 0}
    for _ in range(3000):
        data = bytearray(generator.choice(originals))
        for _ in range(generator.choice([1, 2, 8])):
            data[generator.randrange(len(data))] = generator.randrange(256)
        try:
            answers[has_external_data(bytes(data))] += 1
        except ValueError:
            answers[None] += 1
    assert min(answers.values()) > 100, "every outcome was reached"


def nested(levels: int) -> bytes:
    """A tensor outside the file, in a graph in a node's attribute in a graph, and so on: 3 messages a level."""
    data = tensor(external=True).SerializeToString()
    data = b"\x2a" + varint(len(data)) + data  # Graph.initializer
    for _ in range(levels):
        data = b"\x32" + varint(len(data)) + data  # Attribute.g
        data = b"\x2a" + varint(len(data)) + data  # Node.attribute
        data = b"\x0a" + varint(len(data)) + data  # Graph.node
    return b"\x3a" + varint(len(data)) + data  # Model.graph


def test_nothing_is_too_deep_that_a_runtime_can_read() -> None:
    deepest = nested(32)
    assert onnx.load_from_string(deepest).graph.node
    assert has_external_data(deepest)


@pytest.mark.parametrize("levels", [33, 5000])
def test_what_no_runtime_reads_is_refused_and_takes_no_stack(levels: int) -> None:
    with pytest.raises(ValueError, match="nested more than"):
        has_external_data(nested(levels))


def test_a_file_of_empty_messages_takes_little_memory() -> None:
    """An empty node is two bytes; one object for each would be a hundred."""
    nodes = b"\x0a\x00" * 50_000
    data = b"\x3a" + varint(len(nodes)) + nodes
    tracemalloc.start()
    try:
        assert not has_external_data(data)
        assert tracemalloc.get_traced_memory()[1] < len(data)
    finally:
        tracemalloc.stop()


def varint(value: int) -> bytes:
    digits = []
    while True:
        value, low = value >> 7, value & 0x7F
        digits.append(low | (0x80 if value else 0))
        if not value:
            return bytes(digits)
