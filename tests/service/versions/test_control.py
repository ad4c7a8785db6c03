"""A client's command is done when its call returns, and a restart remembers it."""

import asyncio
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bundle.errors import BundleRefused, ModelNotFound, PolicyInvalid
from bundle.policy import read_policy
from bundle.repository import Bundle, Repository
from service.engines.engine import OnnxEngine, open_on_cpu
from service.versions.control import PolicyControl
from service.versions.registry import Registry
from service.versions.watcher import Watcher

PATIENCE_S = 60


class Broken(Exception):
    """What a runtime raises on a model that it cannot load."""


class Opener:
    """Opens engines, or fails while `broken`."""

    broken = False

    def __call__(self, bundle: Bundle) -> OnnxEngine:
        if self.broken:
            raise Broken("no such operator")
        return open_on_cpu(bundle)


@pytest.fixture
def root(tmp_path: Path, publish_bundle) -> Path:
    publish_bundle(tmp_path)
    publish_bundle(tmp_path, "trees")
    return tmp_path


@pytest.fixture
def opener() -> Opener:
    return Opener()


@pytest.fixture
def registry(root: Path, opener: Opener) -> Iterator[Registry]:
    registry = Registry(Repository(root), opener)
    registry.load_all()
    yield registry
    registry.close()


@pytest.fixture
def told() -> list[bool]:
    """For each time that others were to be told of an edit: whether the policy of 'flowers' said 'loaded' by then."""
    return []


@pytest.fixture
def command(registry: Registry, root: Path, told: list[bool]) -> Iterator[Callable[[str, str], None]]:
    """`command("unload", "flowers")` returns when it is done. Nothing else rescans the folder."""
    watcher = Watcher(registry, 0)
    watcher.start()
    control = PolicyControl(registry, watcher, lambda: told.append(read_policy(root, "flowers").loaded))
    yield lambda what, name: asyncio.run(asyncio.wait_for(getattr(control, what)(name), PATIENCE_S))
    watcher.close()


def test_an_unloaded_model_is_out_of_service_until_it_is_loaded(registry, command, root) -> None:
    command("unload", "flowers")
    assert sorted(registry.routes()) == ["trees"]
    assert read_policy(root, "flowers").loaded is False
    command("load", "flowers")
    assert registry.find("flowers").version == 1
    assert read_policy(root, "flowers").loaded is True


def test_loading_looks_for_newer_versions(registry, command, root, publish_bundle) -> None:
    publish_bundle(root)
    command("load", "flowers")
    assert registry.find("flowers").version == 2


def test_loading_tries_refused_versions_again(registry, opener, command, root, publish_bundle) -> None:
    publish_bundle(root)
    opener.broken = True
    command("load", "flowers")
    assert registry.find("flowers").version == 1
    opener.broken = False
    command("load", "flowers")
    assert registry.find("flowers").version == 2


def test_a_model_of_which_no_version_can_serve_is_told_with_every_reason(registry, opener, command, root) -> None:
    command("unload", "flowers")
    opener.broken = True
    with pytest.raises(BundleRefused, match=r"no version of 'flowers' can serve \(flowers/1: .*no such operator"):
        command("load", "flowers")


def test_others_are_told_of_each_command_once_its_policy_is_on_the_disk(command, told) -> None:
    """Also of one that changes none: to load means to rescan the folder."""
    for what in ("unload", "load", "load"):
        command(what, "flowers")
    assert told == [False, True, True]


def test_others_are_told_though_no_version_can_serve_here(opener, command, told) -> None:
    """A worker alone may fail, and what is on the disk holds for all of them."""
    command("unload", "flowers")
    opener.broken = True
    with pytest.raises(BundleRefused):
        command("load", "flowers")
    assert told == [False, True]


@pytest.mark.parametrize("what", ["load", "unload"])
@pytest.mark.parametrize("name", ["weeds", "..", ""])
def test_an_unknown_model_is_not_found(command, told, what: str, name: str) -> None:
    with pytest.raises(ModelNotFound):
        command(what, name)
    assert told == []


def test_a_model_that_is_deleted_meanwhile_is_not_found(registry, command, root, monkeypatch) -> None:
    """Between the edit of its policy and the rescan of its folder."""
    shutil.copytree(root / "flowers", root / "weeds")
    refresh = registry.refresh

    def delete_and_refresh(**options: Any) -> None:
        shutil.rmtree(root / "weeds")
        refresh(**options)

    monkeypatch.setattr(registry, "refresh", delete_and_refresh)
    with pytest.raises(ModelNotFound, match="no model 'weeds'; available: flowers, trees"):
        command("load", "weeds")


def test_a_damaged_policy_is_not_overwritten(registry, command, root) -> None:
    (root / "flowers" / "serving.json").write_text("{")
    with pytest.raises(PolicyInvalid):
        command("unload", "flowers")
    assert registry.find("flowers").version == 1


def test_a_command_is_followed_to_its_end_though_its_caller_leaves(registry: Registry, root: Path) -> None:
    watcher, told = Watcher(registry, 0), asyncio.Event()
    watcher.start()

    async def scenario() -> None:
        control = PolicyControl(registry, watcher, told.set)
        caller = asyncio.create_task(control.unload("flowers"))
        await asyncio.sleep(0)
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        await asyncio.wait_for(asyncio.gather(*control._following), PATIENCE_S)

    asyncio.run(scenario())
    watcher.close()
    assert told.is_set()
    assert "flowers" not in registry.routes()
    assert not read_policy(root, "flowers").loaded
