"""The folder of models as clients see it, and, where the server allows it, what they may do to it."""

from typing import Protocol

from anther.open_inference import open_inference_pb2 as pb
from service.errors import ControlDisabled, InvalidArgument
from service.rpc.inference.versions import Known, known_versions
from service.versions.registry import Registry

_READY, _UNAVAILABLE = "READY", "UNAVAILABLE"
_NOT_ASKED_FOR = "answers no requests: the model's policy asks for other versions, or for none"


class Control(Protocol):
    """Whoever brings models into service and takes them out; each call returns when that is done."""

    async def load(self, name: str) -> None:
        """Bring the model into service, or look for newer versions of one that serves.

        Raises `ModelNotFound`, and `BundleRefused` where none of its versions may serve.
        """
        ...

    async def unload(self, name: str) -> None:
        """Take the model out of service until it is loaded again. Raises `ModelNotFound`."""
        ...


def index(request: pb.RepositoryIndexRequest, registry: Registry) -> pb.RepositoryIndexResponse:
    """Every version on the disk; reads the folder of models. Raises `InvalidArgument`."""
    _check_repository(request.repository_name)
    known = known_versions(registry)
    if request.ready:
        known = [each for each in known if each.model is not None]
    else:
        known = sorted({*known, *_on_disk(registry)})  # of equals, a set keeps the first
    return pb.RepositoryIndexResponse(models=map(_entry, known))


class ModelControl:
    """Loading and unloading; without a `Control` each is refused."""

    def __init__(self, control: Control | None) -> None:
        self._control = control

    async def load(self, request: pb.RepositoryModelLoadRequest) -> pb.RepositoryModelLoadResponse:
        """Raises `ControlDisabled`, `InvalidArgument` and what `Control.load` raises."""
        control = self._allowed("RepositoryModelLoad")
        expected = "none: what a bundle says cannot be overridden; publish another version"
        _check(request, allowed=(), expected=expected)
        await control.load(request.model_name)
        return pb.RepositoryModelLoadResponse()

    async def unload(self, request: pb.RepositoryModelUnloadRequest) -> pb.RepositoryModelUnloadResponse:
        """Raises `ControlDisabled`, `InvalidArgument` and what `Control.unload` raises."""
        control = self._allowed("RepositoryModelUnload")
        _check(request, allowed=("unload_dependents",), expected="none, or 'unload_dependents'")
        await control.unload(request.model_name)
        return pb.RepositoryModelUnloadResponse()

    def _allowed(self, call: str) -> Control:
        if self._control is None:
            raise ControlDisabled(call)
        return self._control


def _check(
    request: pb.RepositoryModelLoadRequest | pb.RepositoryModelUnloadRequest, allowed: tuple[str, ...], expected: str
) -> None:
    _check_repository(request.repository_name)
    if not request.model_name:
        raise InvalidArgument("model_name", "", "a model's name")
    for name in request.parameters:
        if name not in allowed:
            raise InvalidArgument("parameters", name, expected)


def _check_repository(name: str) -> None:
    if name:
        raise InvalidArgument("repository_name", name, "nothing: the server has one repository")


def _on_disk(registry: Registry) -> list[Known]:
    repository = registry.repository
    return [
        Known(name, version, reason=_NOT_ASKED_FOR)
        for name in repository.models()
        for version in repository.versions(name)
    ]


def _entry(known: Known) -> pb.RepositoryIndexResponse.ModelIndex:
    state = _UNAVAILABLE if known.model is None else _READY
    return pb.RepositoryIndexResponse.ModelIndex(
        name=known.name, version=str(known.version), state=state, reason=known.reason
    )
