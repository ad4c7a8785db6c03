"""Which version answers: the newest that proves itself, however the others are broken, or as the policy has it."""

import dataclasses
import gc
import hashlib
import logging
import os
import shutil
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from anther.open_inference.open_inference_pb2 import RepositoryIndexRequest
from anther.program import EMBEDDED_MODELS
from bundle import repository as repository_module
from bundle.errors import ModelNotFound, VersionNotFound
from bundle.golden import Golden
from bundle.manifest import Manifest
from bundle.policy import ServingPolicy, edit_policy
from bundle.repository import Bundle, Repository
from service import config
from service.engines.engine import Engine, OnnxEngine, OpenEngine, open_on_cpu
from service.errors import CanaryNotFound, DeviceUnavailable, InvalidArgument, NoModelReady
from service.rpc.inference.repository import index
from service.versions.reconcile import Change
from service.versions.registry import Registry
from service.versions.watcher import Watcher

FILES = ["model.onnx", "golden.npz", "report.html", "manifest.json"]


class CountingEngine(OnnxEngine):
    """Keeps count of the sessions that are neither closed nor freed."""

    open: ClassVar[weakref.WeakSet["CountingEngine"]] = weakref.WeakSet()

    def __init__(self, bundle: Bundle) -> None:
        super().__init__(bundle.read(bundle.manifest.model.file))
        CountingEngine.open.add(self)

    def close(self) -> None:
        super().close()
        CountingEngine.open.discard(self)


@pytest.fixture
def load() -> Iterator[Callable[..., Registry]]:
    """`load(folder, default)` gives a loaded registry; no session may be left open behind it."""
    registries: list[Registry] = []

    def loaded(
        root: Path, default: str = "", open_engine: OpenEngine = CountingEngine, **listener: Callable[[Change], None]
    ) -> Registry:
        registries.append(Registry(Repository(root), open_engine, default, **listener))
        registries[-1].load_all()
        return registries[-1]

    yield loaded
    while registries:
        registries.pop().close()
    gc.collect()  # a registry and what it keeps know each other
    assert len(CountingEngine.open) == 0


@pytest.fixture
def second(tmp_path: Path, publish_bundle) -> Path:
    """The folder of version 2, for a test to break; version 1 is good."""
    publish_bundle(tmp_path, seed=1)
    publish_bundle(tmp_path, seed=2)
    return tmp_path / "flowers" / "2"


def rewrite(folder: Path, files: dict[str, bytes] | None = None, **changes: Any) -> None:
    """Replace files of a bundle and fields of its manifest, and sign it again as an exporter would."""
    for name, content in (files or {}).items():
        (folder / name).write_bytes(content)
    manifest = Manifest.from_json((folder / "manifest.json").read_text())
    digests = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in manifest.files}
    text = dataclasses.replace(manifest, files=digests, **changes).to_json()
    (folder / "manifest.json").write_text(text)


def regolden(folder: Path, change: Callable[[Golden], Golden]) -> None:
    golden = change(Golden.from_bytes((folder / "golden.npz").read_bytes()))
    rewrite(folder, {"golden.npz": golden.to_bytes()})


def remodel(folder: Path, change: Callable[[onnx.ModelProto], object]) -> None:
    model = onnx.load_from_string((folder / "model.onnx").read_bytes())
    change(model)
    rewrite(folder, {"model.onnx": model.SerializeToString()})


def rename_input(model: onnx.ModelProto) -> None:
    model.graph.input[0].name = model.graph.node[0].input[0] = "photo"


def store_weight_outside(model: onnx.ModelProto) -> None:
    weight = model.graph.initializer[0]
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="/etc/passwd")


def answer_nothing_but_nan(model: onnx.ModelProto) -> None:
    bias = next(tensor for tensor in model.graph.initializer if tensor.name == "bias")
    bias.CopyFrom(numpy_helper.from_array(np.full(3, np.nan, np.float32), "bias"))


def use_unknown_operator(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("Bloom", ["logits"], ["flower"]))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


# Broken on the disk: each file, each way


def test_an_untouched_newest_version_serves(second: Path, load) -> None:
    registry = load(second.parents[1])
    assert [(model.name, model.version) for model in registry.live()] == [("flowers", 2)]
    assert registry.refused == {}


@pytest.mark.parametrize("damage", [Path.unlink, cut, flip_bit, lambda path: path.write_bytes(b"")])
@pytest.mark.parametrize("file", FILES)
def test_a_damaged_file_keeps_the_last_good_version(second: Path, load, caplog, file: str, damage) -> None:
    damage(second / file)
    registry = load(second.parents[1])
    assert registry.find("flowers").version == 1
    assert list(registry.refused) == ["flowers/2"]
    assert registry.refused["flowers/2"]
    assert f"refused flowers/2: {registry.refused['flowers/2']}" in caplog.text
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    with pytest.raises(VersionNotFound):
        registry.find("flowers", 2)


# Signed, and wrong all the same


def shift_logits(folder: Path) -> None:
    regolden(folder, lambda golden: dataclasses.replace(golden, logits=golden.logits + np.float32(1e-2)))


def shift_pixels(folder: Path) -> None:
    regolden(folder, lambda golden: dataclasses.replace(golden, pixels=golden.pixels ^ np.uint8(1)))


def forget_a_class(folder: Path) -> None:
    regolden(folder, lambda golden: dataclasses.replace(golden, logits=golden.logits[:, :2].copy()))


def break_golden_picture(folder: Path) -> None:
    regolden(folder, lambda golden: dataclasses.replace(golden, encoded=(b"junk", *golden.encoded[1:])))


WRONG = {
    "wrong logits in the golden pictures": (shift_logits, "logit off by"),
    "foreign pixels in the golden pictures": (shift_pixels, "of its pixel values"),
    "golden pictures of another number of classes": (forget_a_class, "2 logits a picture for 3 labels"),
    "a golden picture that is none": (break_golden_picture, "was refused"),
    "golden pictures that are no archive": (lambda folder: rewrite(folder, {"golden.npz": b"junk"}), "unreadable"),
    "another model's weights": (lambda folder: rewrite(folder, {"model.onnx": other_model(folder)}), "logit off by"),
    "another crop": (
        lambda folder: rewrite(folder, preprocessing=dataclasses.replace(manifest_of(folder).preprocessing, crop=30)),
        "pixels of shape",
    ),
    "another size": (
        lambda folder: rewrite(folder, preprocessing=dataclasses.replace(manifest_of(folder).preprocessing, resize=40)),
        "of its pixel values",
    ),
    "a model that does not parse": (lambda folder: rewrite(folder, {"model.onnx": b"junk"}), "broken protobuf"),
    "an empty model": (lambda folder: rewrite(folder, {"model.onnx": b""}), "cannot load the model"),
    "an operator that nobody knows": (lambda folder: remodel(folder, use_unknown_operator), "cannot load the model"),
    "weights outside the bundle": (lambda folder: remodel(folder, store_weight_outside), "external files"),
    "no logits": (lambda folder: remodel(folder, lambda model: model.graph.output.pop(1)), "cannot answer"),
    "no probabilities": (lambda folder: remodel(folder, lambda model: model.graph.output.pop(0)), "cannot answer"),
    "another input": (lambda folder: remodel(folder, rename_input), "cannot answer"),
    "a model that answers NaN": (lambda folder: remodel(folder, answer_nothing_but_nan), "not softmax"),
    "no tolerance for this provider": (
        lambda folder: rewrite(folder, tolerances={"CUDAExecutionProvider": {}}),
        "CUDA",
    ),
    "no tolerance for this precision": (
        lambda folder: rewrite(folder, tolerances={"CPUExecutionProvider": {"fp16": 1.0}}),
        "allows no fp32",
    ),
    "a label too many": (lambda folder: rewrite(folder, labels=("a", "b", "c", "d")), "for 4 labels"),
    "a label too few": (lambda folder: rewrite(folder, labels=("a", "b")), "for 2 labels"),
    "another temperature": (
        lambda folder: rewrite(folder, calibration=dataclasses.replace(manifest_of(folder).calibration, temperature=9)),
        "not softmax",
    ),
    "another name": (lambda folder: rewrite(folder, name="trees"), "names the model 'trees'"),
    "another schema": (lambda folder: rewrite(folder, schema_version=2), "schema_version"),
    "a stray file": (lambda folder: (folder / "notes.txt").write_text("hello"), "unexpected file"),
    "a file that never ends": (lambda folder: replace_by_pipe(folder / "report.html"), "no regular file"),
}


def manifest_of(folder: Path) -> Manifest:
    return Manifest.from_json((folder / "manifest.json").read_text())


def other_model(folder: Path) -> bytes:
    return (folder.parent / "1" / "model.onnx").read_bytes()


def replace_by_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize("wrong", WRONG)
def test_a_version_that_would_answer_wrongly_keeps_the_last_good_one(second: Path, load, wrong: str) -> None:
    spoil, reason = WRONG[wrong]
    spoil(second)
    registry = load(second.parents[1])
    assert registry.find("flowers").version == 1
    assert reason in registry.refused["flowers/2"]


def test_a_rewritten_bundle_without_changes_still_serves(second: Path, load) -> None:
    """Or the cases above would prove nothing."""
    rewrite(second)
    assert load(second.parents[1]).find("flowers").version == 2


def test_a_version_that_is_locked_or_gone_is_passed_over(second: Path) -> None:
    class Locked(Repository):
        def open(self, name: str, version: int | None = None) -> Bundle:
            if version == 3:
                raise VersionNotFound(name, version, [1, 2])
            if version == 2:
                raise PermissionError(13, "Permission denied", str(second))
            return super().open(name, version)

    (second.parent / "3").mkdir()
    registry = Registry(Locked(second.parents[1]), CountingEngine)
    registry.load_all()
    assert registry.find().version == 1
    assert "no version 3" in registry.refused["flowers/3"]
    assert "Permission denied" in registry.refused["flowers/2"]
    registry.close()


# Nothing good


def test_no_good_version_is_an_error_that_names_every_reason(second: Path, load) -> None:
    cut(second / "model.onnx")
    (second.parent / "1" / "golden.npz").unlink()
    with pytest.raises(NoModelReady) as refusal:
        load(second.parents[1])
    for expected in ("flowers/2: ", "model.onnx", "flowers/1: ", "golden.npz", "anther retrain", "--models"):
        assert expected in str(refusal.value)


@pytest.mark.parametrize("root", ["", "no-such-folder"])
def test_no_model_at_all_is_an_error_that_says_so(tmp_path: Path, load, root: str) -> None:
    with pytest.raises(NoModelReady, match="there is none"):
        load(tmp_path / root)


@pytest.mark.parametrize("folder", ["models", "others"])
def test_an_own_folder_that_hides_the_embedded_model_is_named_as_the_reason(
    tmp_path: Path, load, monkeypatch, folder: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / folder).mkdir()
    with pytest.raises(NoModelReady) as refusal:
        load(Path(folder))
    hint = f"./models goes before the embedded model, which --models {EMBEDDED_MODELS} serves"
    assert (hint in str(refusal.value)) is (folder == "models")


def test_a_checkouts_own_folder_hides_nothing(tmp_path: Path, load, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    monkeypatch.setattr(config, "EMBEDDED_MODELS", tmp_path / "models")
    with pytest.raises(NoModelReady) as refusal:
        load(Path("models"))
    assert "goes before" not in str(refusal.value)


def test_a_missing_device_is_no_fault_of_the_bundle(second: Path, load) -> None:
    """The next older version would fail as well, and the operator must hear of the device."""

    def refuse(bundle: Bundle) -> Engine:
        raise DeviceUnavailable("cuda", "CPUExecutionProvider")

    with pytest.raises(DeviceUnavailable):
        load(second.parents[1], open_engine=refuse)


def test_a_missing_runtime_is_no_fault_of_the_bundle_either(second: Path, load) -> None:
    def fail(bundle: Bundle) -> Engine:
        raise ModuleNotFoundError("No module named 'onnxruntime'", name="onnxruntime")

    with pytest.raises(ModuleNotFoundError):
        load(second.parents[1], open_engine=fail)


# Several models


@pytest.fixture
def two(tmp_path: Path, publish_bundle) -> Path:
    publish_bundle(tmp_path, "trees", seed=1)
    publish_bundle(tmp_path, "flowers", seed=2)
    publish_bundle(tmp_path, "flowers", seed=3)
    return tmp_path


def test_every_model_serves_under_its_name(two: Path, load) -> None:
    registry = load(two)
    assert [(model.name, model.version) for model in registry.live()] == [("flowers", 2), ("trees", 1)]
    assert registry.find("trees").name == "trees"
    assert registry.find("flowers", 2) is registry.find("flowers") is registry.named("flowers")


def test_a_request_without_a_name_needs_a_default_where_several_serve(two: Path, load) -> None:
    registry = load(two)
    with pytest.raises(InvalidArgument, match="one of flowers, trees: several models serve; name one in the request"):
        registry.find()
    assert registry.named("") is None
    assert load(two, "trees").find().name == "trees"


def test_an_unknown_default_is_an_error_at_the_start(two: Path, load) -> None:
    with pytest.raises(ModelNotFound, match="no model 'weeds'; available: flowers, trees"):
        load(two, "weeds")


def test_the_only_model_is_the_default(models: Path, load) -> None:
    assert load(models).find().name == "flowers"


@pytest.mark.parametrize("name", ["weeds", "Flowers", "flowers/1", "..", "flowers\0", "x" * 10_000])
def test_unknown_names_are_refused_with_what_there_is(two: Path, load, name: str) -> None:
    registry = load(two)
    with pytest.raises(ModelNotFound) as refusal:
        registry.find(name)
    assert refusal.value.facts["available"] == "flowers,trees"
    assert registry.named(name) is None


@pytest.mark.parametrize("version", [1, 3, -1, 2**63 - 1])
def test_versions_that_do_not_serve_are_refused_with_the_one_that_does(two: Path, load, version: int) -> None:
    with pytest.raises(VersionNotFound) as refusal:
        load(two).find("flowers", version)
    assert refusal.value.facts == {"model": "flowers", "version": str(version), "available": "2"}


def test_one_broken_model_does_not_stop_the_other(two: Path, load) -> None:
    cut(two / "trees" / "1" / "model.onnx")
    registry = load(two)
    assert [model.name for model in registry.live()] == ["flowers"]
    assert list(registry.refused) == ["trees/1"]


@pytest.fixture
def deny(monkeypatch) -> Callable[[Path], set[Path]]:
    """`deny(folder)`: it can neither be listed nor its files read, until it is taken out of the set that is returned.

    As for another user, also where root runs the tests.
    """
    denied: set[Path] = set()
    iterdir, read = Path.iterdir, repository_module.read_regular

    def checked(path: Path) -> None:
        if denied & {path, path.parent}:
            raise PermissionError(13, "Permission denied", str(path))

    def iterdir_checked(path: Path) -> Iterator[Path]:
        checked(path)
        return iterdir(path)

    def read_checked(path: Path, largest: int) -> bytes:
        checked(path)
        return read(path, largest)

    def start(folder: Path) -> set[Path]:
        denied.add(folder)
        return denied

    monkeypatch.setattr(Path, "iterdir", iterdir_checked)
    monkeypatch.setattr(repository_module, "read_regular", read_checked)
    return start


def test_a_model_that_cannot_be_read_stops_neither_the_start_nor_the_reloading_of_others(
    two: Path, load, deny, publish_bundle, caplog
) -> None:
    denied = deny(two / "trees")
    registry = load(two)
    assert [(model.name, model.version) for model in registry.live()] == [("flowers", 2)]
    reason = f"{two}/trees: unreadable (Permission denied); expected a folder that can be listed"
    assert registry.refused == {"trees/0": reason}
    assert f"refused trees: {reason}" in caplog.messages
    publish_bundle(two, "flowers", seed=4)
    assert registry.refresh()
    assert registry.find("flowers").version == 3
    denied.clear()
    registry.refresh()
    assert registry.find("trees").version == 1
    assert registry.refused == {}


def test_a_model_that_can_be_read_no_more_serves_on_and_clients_see_why(two: Path, load, deny) -> None:
    registry = load(two)
    deny(two / "trees")
    registry.refresh()
    assert registry.find("trees").version == 1
    shown = index(RepositoryIndexRequest(), registry).models
    assert [(model.name, model.version, model.state) for model in shown] == [
        ("flowers", "1", "UNAVAILABLE"),
        ("flowers", "2", "READY"),
        ("trees", "0", "UNAVAILABLE"),
        ("trees", "1", "READY"),
    ]
    assert "trees: unreadable (Permission denied)" in shown[2].reason


def test_where_the_only_model_cannot_be_read_the_start_says_so(second: Path, load, deny) -> None:
    deny(second.parent)
    with pytest.raises(NoModelReady, match=r"flowers/0: .*unreadable \(Permission denied\)"):
        load(second.parents[1])


@pytest.fixture
def watched(load) -> Iterator[Callable[[Path], Registry]]:
    """`watched(folder)` gives a loaded registry that rescans its folder all the time."""
    watchers: list[Watcher] = []

    def start(root: Path) -> Registry:
        registry = load(root)
        watchers.append(Watcher(registry, 0.001))
        watchers[-1].start()
        return registry

    yield start
    for watcher in watchers:
        watcher.close()


def test_beside_a_model_that_cannot_be_read_others_are_still_watched(
    two: Path, watched, deny, publish_bundle, eventually
) -> None:
    deny(two / "trees")
    registry = watched(two)
    publish_bundle(two, "flowers", seed=4)
    eventually(lambda: registry.find("flowers").version == 3)


def test_a_version_that_the_system_would_not_read_serves_as_soon_as_it_does(
    second: Path, watched, deny, eventually
) -> None:
    """No file of it changes."""
    denied = deny(second)
    registry = watched(second.parents[1])
    assert registry.find().version == 1
    assert "unreadable (Permission denied)" in registry.refused["flowers/2"]
    denied.clear()
    eventually(lambda: registry.find().version == 2)
    eventually(lambda: registry.refused == {})


def test_another_look_is_due_where_the_system_failed_and_not_where_a_file_is_damaged(second: Path, load, deny) -> None:
    denied = deny(second)
    registry = load(second.parents[1])
    assert registry.refresh()
    assert registry.refresh()
    denied.clear()
    cut(second / "model.onnx")
    assert registry.refresh()
    assert not registry.refresh()


def test_what_the_checks_showed_is_kept(models: Path, load) -> None:
    model = load(models).find()
    assert 0 <= model.golden_difference <= 1e-4
    assert model.load_s > 0


# Policies


@pytest.fixture
def set_policy(second: Path) -> Callable[..., ServingPolicy]:
    """`set_policy(versions=…)` gives 'flowers' that policy."""
    return lambda **fields: edit_policy(
        second.parents[1], "flowers", lambda policy: dataclasses.replace(policy, **fields)
    )


def test_a_canary_answers_its_share_its_label_and_its_number(second: Path, load, set_policy) -> None:
    set_policy(versions="pinned", stable=1)
    edit_policy(second.parents[1], "flowers", lambda policy: policy.with_canary(2, 0.5))
    registry = load(second.parents[1])
    assert {registry.find(request_id=f"{number}").version for number in range(50)} == {1, 2}
    assert registry.find("flowers", label="canary") is registry.find("flowers", 2)
    assert registry.find("", label="stable").version == registry.named("").version == 1
    assert [(model.name, model.version) for model in registry.live()] == [("flowers", 1), ("flowers", 2)]
    assert str(registry.routes()["flowers"]) == "stable 1; canary 2 gets 0.5 of the requests; by number 2"


def test_without_a_canary_its_label_finds_nothing(models: Path, load) -> None:
    with pytest.raises(CanaryNotFound):
        load(models).find(label="canary")


def test_a_model_that_is_out_of_service_does_not_keep_the_server_from_starting(second: Path, load, set_policy) -> None:
    """Nor does it as the default: a command brings it back."""
    set_policy(loaded=False)
    registry = load(second.parents[1], "flowers")
    assert registry.live() == []
    for name in ("", "flowers"):
        with pytest.raises(NoModelReady, match="there is none"):
            registry.find(name)
    set_policy(loaded=True)
    registry.refresh()
    assert registry.find().version == 2


def test_where_others_serve_a_default_that_is_out_of_service_is_not_found(second: Path, load, publish_bundle) -> None:
    root = second.parents[1]
    publish_bundle(root, "trees")
    registry = load(root, "flowers")
    edit_policy(root, "flowers", ServingPolicy.unloaded)
    registry.refresh()
    with pytest.raises(ModelNotFound, match="no model 'flowers'; available: trees"):
        registry.find()


def test_a_damaged_policy_is_told_beside_what_serves(second: Path, load) -> None:
    registry = load(second.parents[1])
    (second.parent / "serving.json").write_text("{")
    registry.refresh()
    assert registry.find().version == 2
    assert list(registry.policy_errors) == ["flowers"]
    assert "is no serving policy" in registry.policy_errors["flowers"]
    (second.parent / "serving.json").unlink()
    registry.refresh()
    assert registry.policy_errors == {}


# Changes while it serves


def test_a_switch_is_told_to_who_wants_to_know(second: Path, load, publish_bundle) -> None:
    root = second.parents[1]
    cut(second / "model.onnx")
    changes: list[Change] = []
    registry = load(root, on_change=changes.append)
    changes.clear()
    old = registry.find()
    publish_bundle(root)
    registry.refresh()
    assert [(change.name, change.serves, change.retired) for change in changes] == [("flowers", True, (old,))]
    assert changes[0].loaded == (registry.find(),)
    assert registry.find().version == 3
    assert list(registry.refused) == ["flowers/2"]


def test_a_new_model_comes_into_service_and_a_deleted_one_leaves(second: Path, load, publish_bundle) -> None:
    root = second.parents[1]
    changes: list[Change] = []
    registry = load(root, on_change=changes.append)
    publish_bundle(root, "trees")
    registry.refresh()
    assert sorted(registry.routes()) == ["flowers", "trees"]
    shutil.rmtree(root / "flowers")
    changes.clear()
    registry.refresh()
    assert [(change.name, change.serves) for change in changes] == [("flowers", False), ("trees", True)]
    assert registry.find().name == "trees"
    shutil.rmtree(root / "trees")
    registry.refresh()
    registry.refresh()
    assert registry.routes() == {}


def test_a_share_that_is_not_mounted_takes_no_model_away(second: Path, load) -> None:
    root = second.parents[1]
    registry = load(root)
    away = root.rename(root.with_name("away"))
    with pytest.raises(FileNotFoundError):
        registry.refresh()
    assert registry.find().version == 2
    away.rename(root)


def test_what_is_in_flight_finishes_on_the_old_version_which_is_then_freed(second: Path, publish_bundle) -> None:
    """By reference counting alone: nothing waits for the garbage collector."""
    freed: list[str] = []
    registry = Registry(Repository(second.parents[1]), open_on_cpu, dispose=lambda engine: freed.append("engine"))
    registry.load_all()
    gc.disable()
    try:
        in_flight = registry.find()
        model, session = weakref.ref(in_flight), weakref.ref(in_flight.engine._session)
        publish_bundle(second.parents[1])
        registry.refresh()
        assert registry.find().version == 3
        pixels = np.zeros((1, 32, 32, 3), np.uint8)
        assert in_flight.engine.run((pixels,)).probabilities.shape == (1, 3)
        assert freed == []
        del in_flight
        assert (freed, model(), session()) == (["engine"], None, None)
    finally:
        gc.enable()
    registry.close()


def test_a_version_that_was_never_retired_is_not_disposed_of(models: Path) -> None:
    """At the end of a process nobody is left to take engines."""
    freed: list[Engine] = []
    registry = Registry(Repository(models), open_on_cpu, dispose=freed.append)
    registry.load_all()
    registry.close()
    del registry
    assert freed == []
