"""Requests for any method, from its descriptor alone: nothing set, each field set to nonsense, and mixtures."""

import random
from collections.abc import Iterator
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

_DEEPEST = 3  # messages within messages
_MIXTURES = 150  # for each method

Values = list[Any]


def methods_of(channel: Any) -> list[MethodDescriptor]:
    """Every method that the server tells of by reflection."""
    database = ProtoReflectionDescriptorDatabase(channel)
    pool = DescriptorPool(database)
    services = [pool.FindServiceByName(name) for name in sorted(database.get_services())]
    return [method for service in services for method in service.methods]


def requests_of(message: Descriptor, words: Values, pictures: Values) -> list[bytes]:
    """Serialized. `words` and `pictures` are strings and bytes that the server knows, to get past its first checks."""
    maker = _Maker(words, pictures)
    kind = GetMessageClass(message)
    singles = [maker.with_one(kind, field, value) for field in message.fields for value in maker.values(field)]
    mixtures = [maker.mixture(kind, random.Random(number)) for number in range(_MIXTURES)]
    return [found.SerializeToString() for found in (kind(), *singles, *mixtures)]


def damaged(requests: list[bytes]) -> Iterator[bytes]:
    """Bytes that are no message, or not the one that they were."""
    chance = random.Random(0)
    for number in range(_MIXTURES):
        data = bytearray(chance.choice(requests)[:5000] or b"\0")
        for _ in range(chance.randint(1, 4)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        yield bytes(data[: chance.randint(0, len(data))]) if number % 2 else bytes(data)
        yield chance.randbytes(chance.randint(1, 200))


class _Maker:
    def __init__(self, words: Values, pictures: Values) -> None:
        self._scalars: dict[int, Values] = {
            FieldDescriptor.CPPTYPE_INT32: [-1, 1, 2**31 - 1, -(2**31)],
            FieldDescriptor.CPPTYPE_UINT32: [1, 2**32 - 1],
            FieldDescriptor.CPPTYPE_INT64: [-1, 1, 32, 2**63 - 1, -(2**63)],
            FieldDescriptor.CPPTYPE_UINT64: [1, 2**64 - 1],
            FieldDescriptor.CPPTYPE_DOUBLE: [-1.0, 1e308, float("nan"), float("inf")],
            FieldDescriptor.CPPTYPE_FLOAT: [-1.0, 1e38, float("nan"), float("inf")],
            FieldDescriptor.CPPTYPE_BOOL: [True],
            FieldDescriptor.CPPTYPE_ENUM: [1, 99],
            FieldDescriptor.CPPTYPE_STRING: ["x", "花" * 5000, "a\n\0\x7fb", "../../etc/passwd", *words],
        }
        self._bytes: Values = [b"\0", b"\xff" * 3072, bytes(10**5), b"\x04\0\0\0junk", *pictures]

    def values(self, field: FieldDescriptor, depth: int = _DEEPEST) -> Values:
        """Of one field, or of one element of it."""
        if field.message_type is not None:
            kind = GetMessageClass(field.message_type)
            parts = field.message_type.fields if depth else ()
            inner = [self.with_one(kind, part, value) for part in parts for value in self.values(part, depth - 1)]
            return [kind(), *inner]
        if field.type == FieldDescriptor.TYPE_BYTES:
            return self._bytes
        return self._scalars[field.cpp_type]

    def with_one(self, kind: type[Message], field: FieldDescriptor, value: Any) -> Message:
        message = kind()
        _put(message, field, value, 1)
        return message

    def mixture(self, kind: type[Message], chance: random.Random, depth: int = _DEEPEST) -> Message:
        """Most fields set, each to something of its own."""
        message = kind()
        for field in message.DESCRIPTOR.fields:
            if chance.random() < 0.7:
                _put(message, field, self._picked(field, chance, depth), chance.choice([1, 1, 2, 3, 200]))
        return message

    def _picked(self, field: FieldDescriptor, chance: random.Random, depth: int) -> Any:
        if field.message_type is not None and depth and not field.message_type.GetOptions().map_entry:
            return self.mixture(GetMessageClass(field.message_type), chance, depth - 1)
        return chance.choice(self.values(field, depth and 1))


def _put(message: Message, field: FieldDescriptor, value: Any, times: int) -> None:
    target = getattr(message, field.name)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        _put_in_map(target, field, value)
    elif field.is_repeated:
        target.extend([value] * times)
    elif field.message_type is not None:
        target.CopyFrom(value)
    else:
        setattr(message, field.name, value)


def _put_in_map(target: Any, field: FieldDescriptor, entry: Any) -> None:
    if field.message_type.fields_by_name["value"].message_type is not None:
        target[entry.key].CopyFrom(entry.value)
    else:
        target[entry.key] = entry.value
