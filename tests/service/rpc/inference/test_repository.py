"""The folder of models as clients see it, and loading and unloading where the server allows it."""

import pytest
from tritonclient.utils import InferenceServerException

from anther.open_inference import open_inference_pb2 as pb
from anther.open_inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from bundle.errors import BundleRefused, ModelNotFound


class RecordingControl:
    """Knows one model, one whose bundle is bad, and what it was told to do."""

    def __init__(self) -> None:
        self.done: list[tuple[str, str]] = []

    async def load(self, name: str) -> None:
        self._check(name)
        self.done.append(("load", name))

    async def unload(self, name: str) -> None:
        self._check(name)
        self.done.append(("unload", name))

    def _check(self, name: str) -> None:
        if name == "broken":
            raise BundleRefused("models/broken/1: model.onnx is damaged")
        if name != "flowers":
            raise ModelNotFound(name, ["flowers"])


@pytest.fixture
def control() -> RecordingControl:
    return RecordingControl()


@pytest.fixture
def controlled(start_edge, control, connect):
    """A client of a server that lets clients load and unload."""
    with connect(start_edge(controlled_by=control)) as client:
        yield client


# The index


@pytest.fixture
def repository(tmp_path, publish_bundle):
    """Versions 1 and 2 good, 3 changed after it was published, and another model."""
    for seed in range(3):
        publish_bundle(tmp_path, seed=seed)
    (tmp_path / "flowers" / "3" / "report.html").write_text("changed")
    publish_bundle(tmp_path, "trees")
    return tmp_path


def test_the_index_holds_every_version_with_its_state_and_why(start_edge, repository) -> None:
    stub = GRPCInferenceServiceStub(start_edge(repository).channel)
    found = stub.RepositoryIndex(pb.RepositoryIndexRequest()).models
    assert [(each.name, each.version, each.state) for each in found] == [
        ("flowers", "1", "UNAVAILABLE"),
        ("flowers", "2", "READY"),
        ("flowers", "3", "UNAVAILABLE"),
        ("trees", "1", "READY"),
    ]
    assert found[0].reason.startswith("answers no requests")
    assert "SHA-256" in found[2].reason
    assert found[2].reason.startswith("flowers/3/report.html"), "and nothing of where the server keeps it"
    assert (found[1].reason, found[3].reason) == ("", "")


def test_the_index_of_what_is_ready_leaves_out_the_rest(start_edge, repository) -> None:
    stub = GRPCInferenceServiceStub(start_edge(repository).channel)
    found = stub.RepositoryIndex(pb.RepositoryIndexRequest(ready=True)).models
    assert [(each.name, each.version) for each in found] == [("flowers", "2"), ("trees", "1")]


def test_there_is_one_repository_only(stub, failure_of) -> None:
    failure = failure_of(lambda: stub.RepositoryIndex(pb.RepositoryIndexRequest(repository_name="other")))
    assert failure.code == "INVALID_ARGUMENT"
    assert "'repository_name' is 'other'" in failure.message


# Loading and unloading


@pytest.mark.parametrize("call", ["load_model", "unload_model"])
def test_without_leave_nothing_is_loaded_or_unloaded(start_edge, connect, call: str) -> None:
    with connect(start_edge()) as client:
        with pytest.raises(InferenceServerException) as raised:
            getattr(client, call)("flowers")
        assert client.is_model_ready("flowers")
    assert raised.value.status() == "StatusCode.PERMISSION_DENIED"
    assert "--control" in raised.value.message()


def test_with_leave_models_are_loaded_and_unloaded(controlled, control) -> None:
    controlled.unload_model("flowers")
    controlled.unload_model("flowers", unload_dependents=True)
    controlled.load_model("flowers")
    assert control.done == [("unload", "flowers"), ("unload", "flowers"), ("load", "flowers")]


@pytest.mark.parametrize("call", ["load_model", "unload_model"])
@pytest.mark.parametrize(
    ("name", "status", "message"),
    [
        ("trees", "NOT_FOUND", "no model 'trees'"),
        (
            "broken",
            "UNAVAILABLE",
            "no version of the model may serve; RepositoryIndex and the server's log say why",
        ),
    ],
)
def test_what_goes_wrong_is_said(controlled, control, call: str, name: str, status: str, message: str) -> None:
    with pytest.raises(InferenceServerException) as raised:
        getattr(controlled, call)(name)
    assert raised.value.status() == f"StatusCode.{status}"
    assert message in raised.value.message()
    assert control.done == []


@pytest.mark.parametrize("call", ["RepositoryModelLoad", "RepositoryModelUnload"])
def test_a_model_is_loaded_by_its_name_only(start_edge, control, failure_of, call: str) -> None:
    stub = GRPCInferenceServiceStub(start_edge(controlled_by=control).channel)
    failure = failure_of(lambda: getattr(stub, call)(getattr(pb, f"{call}Request")()))
    assert (failure.code, failure.message) == ("INVALID_ARGUMENT", "'model_name' is ''; expected a model's name")
    assert control.done == []


def test_a_bundle_cannot_be_overridden_while_it_is_loaded(controlled, control) -> None:
    for options in ({"config": "{}"}, {"config": "{}", "files": {"file:1/model.onnx": b"another"}}):
        with pytest.raises(InferenceServerException) as raised:
            controlled.load_model("flowers", **options)
        assert raised.value.status() == "StatusCode.INVALID_ARGUMENT"
        assert "what a bundle says cannot be overridden; publish another version" in raised.value.message()
    assert control.done == []


def test_unloading_takes_no_other_parameter_and_no_other_repository(start_edge, control, failure_of) -> None:
    stub = GRPCInferenceServiceStub(start_edge(controlled_by=control).channel)
    force = {"force": pb.ModelRepositoryParameter(bool_param=True)}
    for request in (
        pb.RepositoryModelUnloadRequest(model_name="flowers", parameters=force),
        pb.RepositoryModelUnloadRequest(model_name="flowers", repository_name="other"),
    ):
        assert failure_of(lambda request=request: stub.RepositoryModelUnload(request)).code == "INVALID_ARGUMENT"
    assert control.done == []
