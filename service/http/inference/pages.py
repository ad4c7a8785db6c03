"""What stands at which path of /v2, beside inference: a call, its request from path and body, its answer in JSON."""
# ruff: noqa: ARG005 - all functions of one column of the table take the same

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message
from msgspec import Struct

from anther.open_inference import open_inference_pb2 as pb
from service.http.inference.body import parsed
from service.http.inference.requests import Parameters, put_parameters
from service.http.inference.responses import as_json

Path = dict[str, str]
Tell = Callable[[Any, Path], Any]


@dataclass(frozen=True, slots=True)
class Page:
    """A call of the service at a path. What `tell` makes of the answer is JSON; `holds` decides between 200 and 503."""

    method: str
    summary: str
    paths: tuple[str, ...]
    ask: Callable[[Path, bytes], Message]
    tell: Tell = lambda answer, path: as_json(answer)
    holds: Callable[[Any], bool] = lambda answer: True
    verb: str = "GET"
    offered: bool = True


class _Indexed(Struct):
    ready: bool | None = None


class _Controlled(Struct):
    parameters: Parameters | None = None


def of_model(end: str = "") -> tuple[str, str]:
    return f"/v2/models/{{model}}{end}", f"/v2/models/{{model}}/versions/{{version}}{end}"


def _named(request: Callable[..., Message]) -> Callable[[Path, bytes], Message]:
    return lambda path, body: request(name=path.get("model", ""), version=path.get("version", ""))


def _controlled(request: Callable[..., Any]) -> Callable[[Path, bytes], Message]:
    def ask(path: Path, body: bytes) -> Message:
        message = request(model_name=path["model"])
        put_parameters(message.parameters, parsed(body, _Controlled).parameters or {})
        asked: Message = message
        return asked

    return ask


def _not_offered(method: str, verb: str, *paths: str) -> Page:
    request = getattr(pb, f"{method}Request")
    return Page(method, "Not offered.", paths, lambda path, body: request(), verb=verb, offered=False)


def _memory(kind: str) -> tuple[Page, ...]:
    method, path = f"{kind}SharedMemory", f"/v2/{kind.lower()}sharedmemory"
    return (
        _not_offered(f"{method}Status", "GET", f"{path}/status", f"{path}/region/{{region}}/status"),
        _not_offered(f"{method}Register", "POST", f"{path}/region/{{region}}/register"),
        _not_offered(f"{method}Unregister", "POST", f"{path}/unregister", f"{path}/region/{{region}}/unregister"),
    )


def _settings(method: str, *paths: str) -> tuple[Page, ...]:
    return tuple(_not_offered(method, verb, *paths) for verb in ("GET", "POST"))


PAGES = (
    Page(
        "ServerLive", "Whether the server answers at all.", ("/v2/health/live",),
        lambda path, body: pb.ServerLiveRequest(),
    ),
    Page(
        "ServerReady", "Whether requests for inference are taken.", ("/v2/health/ready",),
        lambda path, body: pb.ServerReadyRequest(), holds=lambda answer: answer.ready,
    ),
    Page(
        "ServerMetadata", "The server's name, version and extensions.", ("/v2",),
        lambda path, body: pb.ServerMetadataRequest(),
    ),
    Page(
        "ModelStatistics", "Counts and times since the server started.", ("/v2/models/stats", *of_model("/stats")),
        _named(pb.ModelStatisticsRequest),
    ),
    Page(
        "ModelReady", "Whether a model, or one version of it, takes requests.", of_model("/ready"),
        _named(pb.ModelReadyRequest), lambda answer, path: {"name": path["model"], "ready": answer.ready},
        holds=lambda answer: answer.ready,
    ),
    Page(
        "ModelConfig", "Limits, tensors and devices of a model.", of_model("/config"), _named(pb.ModelConfigRequest),
        lambda answer, path: as_json(answer.config),
    ),
    Page(
        "ModelMetadata", "Names, types and shapes of a model's tensors.", of_model(), _named(pb.ModelMetadataRequest)
    ),
    Page(
        "RepositoryIndex", "Every version in the folder of models.", ("/v2/repository/index",),
        lambda path, body: pb.RepositoryIndexRequest(ready=parsed(body, _Indexed).ready or False),
        lambda answer, path: [as_json(model) for model in answer.models], verb="POST",
    ),
    Page(
        "RepositoryModelLoad", "Brings a model into service.", ("/v2/repository/models/{model}/load",),
        _controlled(pb.RepositoryModelLoadRequest), verb="POST",
    ),
    Page(
        "RepositoryModelUnload", "Takes a model out of service.", ("/v2/repository/models/{model}/unload",),
        _controlled(pb.RepositoryModelUnloadRequest), verb="POST",
    ),
    *_memory("System"),
    *_memory("Cuda"),
    *_settings("TraceSetting", "/v2/trace/setting", *of_model("/trace/setting")),
    *_settings("LogSettings", "/v2/logging"),
)  # fmt: skip
