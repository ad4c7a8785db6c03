"""Server reflection for services whose messages live in different descriptor pools."""

from collections.abc import Iterable, Sequence

from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health, health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2, reflection_pb2_grpc

from service.rpc.guarded import GuardedHandlers


def enable(server: GuardedHandlers, services: Sequence[str], files: Iterable[FileDescriptor]) -> None:
    """Let clients ask for these services, for health and for reflection itself; `files` define the first of them."""
    names = (*services, health.SERVICE_NAME, reflection.SERVICE_NAME)
    pool = copied((*files, health_pb2.DESCRIPTOR, reflection_pb2.DESCRIPTOR))
    servicer = reflection.aio.ReflectionServicer(names, pool)
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(servicer, server)


def copied(files: Iterable[FileDescriptor]) -> DescriptorPool:
    """A new pool with these files and what they import; the default one may hold another library's text of the same
    names.
    """
    pool = DescriptorPool()
    for file in files:
        _add(file, pool)
    return pool


def _add(file: FileDescriptor, pool: DescriptorPool) -> None:
    for dependency in file.dependencies:
        _add(dependency, pool)
    pool.AddSerializedFile(file.serialized_pb)
