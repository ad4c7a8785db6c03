"""What serves follows the folder and its policy, and a failure never takes a good version away."""

import contextlib
import dataclasses
import json
import logging
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from bundle.errors import BundleRefused
from bundle.policy import ServingPolicy, Share
from bundle.repository import Bundle, Repository, open_bundle
from service.errors import DeviceUnavailable
from service.versions.loader import LiveModel
from service.versions.reconcile import FOLDER, UNREADABLE, Change, Reconciler, Refusal, substitutes
from service.versions.routes import Route


class NoEngine:
    provider, precision, batch_sizes = "none", "fp32", (1,)

    def run(self, parts, evidence=False):
        raise AssertionError("nobody asks")

    def close(self) -> None:
        raise AssertionError("nobody closes it")


class Folder:
    """A model's folder in which a version is good unless its file says otherwise; a reconciler rescans it."""

    def __init__(self, root: Path, bundle: Bundle) -> None:
        self.path = root / "flowers"
        self.path.mkdir()
        self.loads: list[int] = []
        self.error: Exception | None = None
        self.reconciler = Reconciler("flowers", Repository(root))
        self._bundle = bundle

    def publish(self, *versions: int, content: str = "good") -> None:
        for version in versions:
            (self.path / str(version)).mkdir(exist_ok=True)
            (self.path / str(version) / "model").write_text(content)

    def delete(self, *versions: int) -> None:
        for version in versions:
            shutil.rmtree(self.path / str(version))

    def policy(self, **fields: object) -> None:
        record = dataclasses.asdict(ServingPolicy(**fields))
        (self.path / "serving.json").write_text(json.dumps(record))

    def rescan(self, again: bool = False) -> Change:
        self.loads.clear()
        return self.reconciler.rescan(self._load, again)

    @property
    def route(self) -> Route:
        assert self.reconciler.route is not None
        return self.reconciler.route

    @property
    def stable(self) -> int:
        return self.route.stable.version

    def _load(self, name: str, version: int) -> LiveModel:
        self.loads.append(version)
        if self.error is not None:
            raise self.error
        if not (self.path / str(version)).is_dir():
            raise BundleRefused(f"no version {version}")
        if (content := (self.path / str(version) / "model").read_text()) != "good":
            raise BundleRefused(content)
        return LiveModel(dataclasses.replace(self._bundle, version=version), NoEngine(), 0.0, 0.0)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory, make_bundle) -> Bundle:
    return open_bundle(make_bundle(tmp_path_factory.mktemp("bundle") / "it"))


@pytest.fixture
def folder(tmp_path: Path, bundle: Bundle) -> Folder:
    return Folder(tmp_path, bundle)


def numbers(models: tuple[LiveModel, ...]) -> list[int]:
    return [model.version for model in models]


# The latest


def why(refused: Mapping[int, Refusal]) -> dict[int, str]:
    return {version: refusal.reason for version, refusal in refused.items()}


def test_the_newest_good_version_serves(folder: Folder) -> None:
    folder.publish(1, 2, 10)
    folder.publish(11, content="broken")
    change = folder.rescan()
    assert folder.stable == 10
    assert folder.loads == [11, 10]
    assert (change.serves, numbers(change.loaded), change.retired) == (True, [10], ())
    assert why(change.refused) == {11: "broken"}
    assert change.refused[11].kind == "BUNDLE_REFUSED"


def test_a_new_version_takes_over_and_the_old_one_is_retired(folder: Folder) -> None:
    folder.publish(1)
    folder.rescan()
    old = folder.route.stable
    folder.publish(2)
    change = folder.rescan()
    assert folder.stable == 2
    assert folder.loads == [2]
    assert (numbers(change.loaded), change.retired) == ([2], (old,))


def test_nothing_is_loaded_where_nothing_has_changed(folder: Folder) -> None:
    folder.publish(1)
    folder.publish(2, content="broken")
    folder.rescan()
    before = folder.route
    assert folder.rescan() == Change("flowers", True, (), (), {}, ())
    assert folder.loads == []
    assert folder.route == before


def test_a_bad_new_version_keeps_the_old_one_and_says_why_once(folder: Folder, caplog) -> None:
    folder.publish(1)
    folder.rescan()
    folder.publish(2, content="broken")
    assert why(folder.rescan().refused) == {2: "broken"}
    assert why(folder.rescan().refused) == {}
    assert folder.stable == 1
    assert folder.reconciler.refused[2].reason == "broken"
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR] == [
        "refused flowers/2: broken"
    ]


def test_a_refused_version_is_tried_again_when_its_files_have_changed(folder: Folder) -> None:
    folder.publish(1)
    folder.publish(2, content="broken")
    folder.rescan()
    folder.publish(2, content="still broken")
    assert why(folder.rescan().refused) == {2: "still broken"}
    folder.publish(2)
    change = folder.rescan()
    assert folder.stable == 2
    assert (why(change.refused), change.cleared) == ({}, (2,))
    assert folder.reconciler.refused == {}


def test_a_refused_version_is_tried_again_by_command(folder: Folder) -> None:
    folder.publish(1)
    folder.publish(2, content="broken")
    folder.rescan()
    change = folder.rescan(again=True)
    assert folder.loads == [2]
    assert (why(change.refused), change.cleared) == ({2: "broken"}, ())


def test_a_refused_version_that_is_deleted_is_forgotten(folder: Folder) -> None:
    folder.publish(1)
    folder.publish(2, content="broken")
    folder.rescan()
    folder.delete(2)
    assert folder.rescan().cleared == (2,)
    assert folder.reconciler.refused == {}


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), OSError(5, "Input/output error")])
def test_a_version_that_cannot_be_read_is_refused(folder: Folder, error: OSError) -> None:
    folder.publish(1)
    folder.rescan()
    folder.publish(2)
    folder.error = error
    change = folder.rescan()
    assert why(change.refused) == {2: str(error)}
    assert change.refused[2].kind == UNREADABLE
    assert folder.stable == 1


def caused_by(error: OSError) -> BundleRefused:
    """As `Repository.open` has it."""
    refusal = BundleRefused(f"unreadable ({error.strerror})")
    refusal.__cause__ = error
    return refusal


SYSTEM = [OSError(24, "Too many open files"), OSError(5, "Input/output error"), PermissionError(13, "denied")]


@pytest.mark.parametrize("error", [*SYSTEM, *map(caused_by, SYSTEM)], ids=str)
def test_where_the_system_failed_the_version_is_tried_again_at_every_look_and_told_once(
    folder: Folder, error: Exception, caplog
) -> None:
    folder.publish(1)
    folder.rescan()
    folder.publish(2)
    folder.error = error
    assert why(folder.rescan().refused) == {2: str(error)}
    assert folder.rescan() == Change("flowers", True, (), (), {}, ())
    assert (folder.loads, folder.stable, folder.reconciler.unsettled) == ([2], 1, True)
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR] == [
        f"refused flowers/2: {error}"
    ]
    folder.error = None
    change = folder.rescan()
    assert (folder.stable, why(change.refused), change.cleared) == (2, {}, (2,))
    assert not folder.reconciler.unsettled


@pytest.mark.parametrize(
    "error",
    [BundleRefused("another digest"), caused_by(FileNotFoundError(2, "No such file")), caused_by(OSError(40, "Loop"))],
    ids=str,
)
def test_real_damage_is_not_read_again_before_the_files_change(folder: Folder, error: Exception) -> None:
    folder.publish(1)
    folder.rescan()
    folder.publish(2)
    folder.error = error
    folder.rescan()
    assert folder.rescan() == Change("flowers", True, (), (), {}, ())
    assert (folder.loads, folder.reconciler.unsettled) == ([], False)


def test_a_policy_that_the_system_would_not_read_is_tried_again(folder: Folder, monkeypatch) -> None:
    folder.publish(1, 2)
    folder.policy(versions="pinned", stable=1)

    def refuse(path: Path, largest: int) -> bytes:
        raise OSError(24, "Too many open files", str(path))

    with monkeypatch.context() as patch:
        patch.setattr("anther.files.read_regular", refuse)
        folder.rescan()
    assert (folder.stable, folder.reconciler.unsettled) == (2, True)
    folder.rescan()
    assert (folder.stable, folder.reconciler.unsettled) == (1, False)


# A folder that cannot be listed


@pytest.fixture
def unlisted(folder: Folder, monkeypatch):
    """`with unlisted():` the model's folder cannot be listed."""

    def refuse(name: str) -> list[int]:
        raise caused_by(PermissionError(13, "Permission denied"))

    @contextlib.contextmanager
    def lock() -> Iterator[None]:
        with monkeypatch.context() as patch:
            patch.setattr(folder.reconciler._repository, "versions", refuse)
            yield

    return lock


def test_a_folder_that_cannot_be_listed_is_refused_once_and_what_serves_goes_on(
    folder: Folder, unlisted, caplog
) -> None:
    folder.publish(1)
    folder.publish(2, content="broken")
    folder.rescan()
    before = folder.route
    folder.publish(3)
    with unlisted():
        assert why(folder.rescan().refused) == {FOLDER: "unreadable (Permission denied)"}
        assert folder.rescan() == Change("flowers", True, (), (), {}, ())
        assert folder.route is before
        assert list(folder.reconciler.refused) == [2, FOLDER]
        assert folder.reconciler.unsettled
    assert caplog.messages == ["refused flowers/2: broken", "refused flowers: unreadable (Permission denied)"]
    change = folder.rescan()
    assert (folder.stable, why(change.refused), change.cleared) == (3, {}, (FOLDER,))
    assert list(folder.reconciler.refused) == [2]


def test_a_folder_that_could_never_be_listed_serves_nothing_and_is_not_gone(folder: Folder, unlisted) -> None:
    folder.publish(1)
    with unlisted():
        assert not folder.rescan().serves
        assert not folder.reconciler.gone
    assert numbers(folder.rescan().loaded) == [1]


def test_what_is_no_fault_of_the_version_is_raised_and_changes_nothing(folder: Folder) -> None:
    folder.publish(1)
    folder.rescan()
    before = folder.route
    folder.publish(2)
    folder.error = DeviceUnavailable("cuda", "nothing")
    with pytest.raises(DeviceUnavailable):
        folder.rescan()
    assert folder.route is before
    folder.error = None
    assert numbers(folder.rescan().loaded) == [2]


# Files that go or change under a version that serves


def test_a_deleted_version_serves_until_another_one_does(folder: Folder) -> None:
    folder.publish(1)
    folder.rescan()
    folder.delete(1)
    assert folder.rescan() == Change("flowers", True, (), (), {}, ())
    assert folder.stable == 1
    folder.publish(2, content="broken")
    folder.rescan()
    assert folder.stable == 1
    folder.publish(3)
    assert numbers(folder.rescan().retired) == [1]
    assert folder.stable == 3


def test_a_deleted_newest_version_gives_way_to_the_one_before(folder: Folder) -> None:
    folder.publish(1, 2)
    folder.rescan()
    folder.delete(2)
    change = folder.rescan()
    assert (numbers(change.loaded), numbers(change.retired)) == ([1], [2])


def test_a_version_whose_files_have_changed_is_proven_anew(folder: Folder) -> None:
    """Versions are written once; where somebody does otherwise, a restart must not serve something else."""
    folder.publish(1)
    folder.rescan()
    old = folder.route.stable
    (folder.path / "1" / "other").touch()
    change = folder.rescan()
    assert folder.loads == [1]
    assert change.retired == (old,)
    assert folder.route.stable is change.loaded[0] is not old


def test_a_version_that_is_damaged_on_the_disk_serves_on_from_memory(folder: Folder) -> None:
    folder.publish(1, 2)
    folder.rescan()
    folder.publish(2, content="damaged")
    change = folder.rescan()
    assert (folder.stable, why(change.refused)) == (2, {2: "damaged"})
    assert (change.loaded, change.retired) == ((), ())
    assert why(folder.rescan().refused) == {}


def test_a_kept_version_whose_files_have_changed_is_proven_anew(folder: Folder) -> None:
    """Also where the policy asks for another one that cannot be had."""
    folder.publish(1)
    folder.rescan()
    old = folder.route.stable
    folder.publish(2, content="broken")
    folder.policy(versions="pinned", stable=2)
    (folder.path / "1" / "other").touch()
    assert folder.rescan().retired == (old,)
    assert folder.stable == 1


def test_a_model_whose_folder_is_gone_leaves_service(folder: Folder) -> None:
    folder.publish(1)
    folder.rescan()
    shutil.rmtree(folder.path)
    change = folder.rescan()
    assert (change.serves, numbers(change.retired)) == (False, [1])
    assert folder.reconciler.route is None
    assert folder.reconciler.gone


def test_a_model_without_any_version_does_not_serve(folder: Folder) -> None:
    assert not folder.rescan().serves
    assert folder.reconciler.route is None


# Pinned


def test_a_pinned_version_serves_whatever_is_published(folder: Folder) -> None:
    folder.publish(1, 2)
    folder.policy(versions="pinned", stable=1)
    folder.rescan()
    assert (folder.stable, folder.loads) == (1, [1])
    folder.publish(3)
    assert folder.rescan() == Change("flowers", True, (), (), {}, ())


@pytest.mark.parametrize("content", ["broken", None])
def test_a_pinned_version_that_fails_keeps_the_last_good_one(folder: Folder, content: str | None) -> None:
    folder.publish(1)
    folder.rescan()
    if content is not None:
        folder.publish(2, content=content)
    folder.policy(versions="pinned", stable=2)
    change = folder.rescan()
    assert folder.stable == 1
    assert why(change.refused) == {2: content or "no version 2"}
    assert folder.reconciler.refused[2].reason == why(change.refused)[2]
    assert why(folder.rescan().refused) == {}, "it is told once"
    folder.publish(2, content="good")
    assert folder.rescan().cleared == (2,)
    assert folder.stable == 2


def test_at_the_start_an_earlier_stable_version_stands_in_for_a_pinned_one_that_fails(folder: Folder) -> None:
    folder.publish(1, 2, 3, 5)
    folder.publish(4, content="broken")
    folder.policy(versions="pinned", stable=4, previous=(9, 1, 2))
    folder.rescan()
    assert folder.loads == [4, 2]
    assert folder.stable == 2


def test_a_pinned_version_that_is_deleted_serves_on(folder: Folder) -> None:
    folder.publish(1, 2)
    folder.policy(versions="pinned", stable=1)
    folder.rescan()
    folder.delete(1)
    folder.rescan()
    assert folder.stable == 1


# All, canary, shadow


def test_all_good_versions_answer_by_number(folder: Folder) -> None:
    folder.publish(1, 2, 4)
    folder.publish(3, content="broken")
    folder.policy(versions="all", stable=2)
    change = folder.rescan()
    assert folder.stable == 2
    assert list(folder.route.answering) == [1, 2, 4]
    assert why(change.refused) == {3: "broken"}
    folder.delete(4)
    assert numbers(folder.rescan().retired) == [4]


def test_of_all_the_newest_is_stable_where_none_is_named(folder: Folder) -> None:
    folder.publish(1, 2)
    folder.policy(versions="all")
    folder.rescan()
    assert folder.stable == 2


def test_canary_and_shadow_are_loaded_beside_the_stable_version(folder: Folder) -> None:
    folder.publish(1, 2, 3)
    folder.policy(versions="pinned", stable=1, canary=Share(2, 0.1), shadow=Share(3, 1.0))
    change = folder.rescan()
    assert numbers(change.loaded) == [1, 2, 3]
    assert (folder.route.canary.model.version, folder.route.canary.share) == (2, 0.1)
    assert (folder.route.shadow.model.version, folder.route.shadow.share) == (3, 1.0)


def test_another_share_loads_nothing(folder: Folder) -> None:
    folder.publish(1, 2)
    folder.policy(versions="pinned", stable=1, canary=Share(2, 0.1))
    folder.rescan()
    folder.policy(versions="pinned", stable=1, canary=Share(2, 0.5))
    change = folder.rescan()
    assert (folder.loads, change.loaded, change.retired) == ([], (), ())
    assert folder.route.canary.share == 0.5


def test_a_promoted_canary_is_not_loaded_again(folder: Folder) -> None:
    folder.publish(1, 2)
    folder.policy(versions="pinned", stable=1, canary=Share(2, 0.1))
    folder.rescan()
    canary = folder.route.canary.model
    folder.policy(versions="pinned", stable=2, previous=(1,))
    change = folder.rescan()
    assert folder.route.stable is canary
    assert (folder.loads, numbers(change.retired)) == ([], [1])


def test_a_canary_that_fails_leaves_its_share_to_the_stable_version(folder: Folder) -> None:
    folder.publish(1)
    folder.publish(2, content="broken")
    folder.policy(versions="pinned", stable=1, canary=Share(2, 0.1), shadow=Share(3, 0.1))
    change = folder.rescan()
    assert why(change.refused) == {2: "broken", 3: "no version 3"}
    assert folder.route.canary is folder.route.shadow is None


def test_a_deleted_canary_leaves_service(folder: Folder) -> None:
    folder.publish(1, 2)
    folder.policy(versions="pinned", stable=1, canary=Share(2, 0.1))
    folder.rescan()
    folder.delete(2)
    change = folder.rescan()
    assert numbers(change.retired) == [2]
    assert folder.route.canary is None


def test_who_follows_the_latest_takes_no_version_on_trial_for_stable(folder: Folder) -> None:
    folder.publish(1, 2)
    folder.policy(canary=Share(2, 0.1))
    folder.rescan()
    assert (folder.stable, folder.route.canary.model.version) == (1, 2)


def test_a_version_on_trial_is_stable_where_it_is_the_only_good_one(folder: Folder) -> None:
    folder.publish(1, content="broken")
    folder.publish(2)
    folder.policy(canary=Share(2, 0.1))
    folder.rescan()
    assert folder.stable == 2
    assert folder.route.canary is None


# The policy itself


def test_a_model_that_is_unloaded_leaves_service_and_comes_back(folder: Folder) -> None:
    folder.publish(1)
    folder.rescan()
    folder.policy(loaded=False)
    change = folder.rescan()
    assert (change.serves, numbers(change.retired)) == (False, [1])
    folder.policy()
    assert numbers(folder.rescan().loaded) == [1]


def test_a_damaged_policy_keeps_the_last_good_one_and_says_so(folder: Folder, caplog) -> None:
    folder.publish(1, 2)
    folder.policy(versions="pinned", stable=1)
    folder.rescan()
    (folder.path / "serving.json").write_text("{")
    folder.publish(3)
    for _ in range(2):
        assert folder.rescan() == Change("flowers", True, (), (), {}, ())
    assert folder.stable == 1
    assert "serving.json is no serving policy" in folder.reconciler.policy_error
    assert [folder.reconciler.policy_error in record.getMessage() for record in caplog.records] == [True], "told once"
    folder.policy()
    folder.rescan()
    assert (folder.stable, folder.reconciler.policy_error) == (3, "")


def test_a_policy_that_was_never_readable_is_the_default(folder: Folder) -> None:
    folder.publish(1, 2)
    (folder.path / "serving.json").write_text("{")
    folder.rescan()
    assert folder.stable == 2


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (ServingPolicy(), [7, 5, 3]),
        (ServingPolicy(canary=Share(7, 0.5), shadow=Share(3, 0.5)), [5]),
        (ServingPolicy(versions="pinned", stable=4), [4]),
        (ServingPolicy(versions="all"), [7, 5, 3]),
        (ServingPolicy(versions="all", stable=3), [3]),
        (ServingPolicy(stable=3), [7, 5, 3]),
    ],
)
def test_what_is_wanted_as_stable(policy: ServingPolicy, expected: list[int]) -> None:
    assert policy.wanted([3, 5, 7]) == expected


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (ServingPolicy(), [9, 7, 5, 3]),
        (ServingPolicy(versions="pinned", stable=6), [5, 3, 7, 9]),
        (ServingPolicy(versions="pinned", stable=6, previous=(3, 9, 4)), [9, 3, 5, 7]),
        (ServingPolicy(versions="all", stable=5), [3, 7, 9]),
    ],
)
def test_what_stands_in(policy: ServingPolicy, expected: list[int]) -> None:
    """Earlier stable versions, then older ones from the nearest on, then newer ones."""
    assert substitutes(policy, [3, 5, 7, 9]) == expected
