"""What happens to the disk while a server serves is not its callers' trouble."""

import contextlib
import resource
import time
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest

from tests.faults.victim import PATIENCE_S, Victim

WATCH_S = 0.1


def vanish(root: Path) -> None:
    root.rename(root.with_name("elsewhere"))


def become_a_file(root: Path) -> None:
    vanish(root)
    root.write_text("no folder")


def become_a_dangling_link(root: Path) -> None:
    vanish(root)
    root.symlink_to(root.with_name("nowhere"))


def lock(root: Path) -> None:
    """Where the tests run as root this locks nobody out, and says nothing."""
    for path in [*root.rglob("*"), root]:
        path.chmod(0)


def lose_its_files(root: Path) -> None:
    for path in root.glob("*/*/*"):
        path.unlink()


def shrink_its_files(root: Path) -> None:
    """In place, as a disk that loses data would, and not as a publisher would."""
    for path in root.glob("*/*/*"):
        with path.open("r+b") as file:
            file.truncate(10)


@pytest.fixture
def serving(start_victim, tmp_path, publish_bundle) -> tuple[Victim, Path]:
    root = tmp_path / "models"
    publish_bundle(root)
    return start_victim("--watch-s", str(WATCH_S), models=root), root


def test_a_folder_that_comes_back_is_watched_again(serving, publish_bundle, pictures, eventually) -> None:
    victim, root = serving
    vanish(root)
    time.sleep(3 * WATCH_S)
    root.with_name("elsewhere").rename(root)
    publish_bundle(root, seed=1)
    eventually(lambda: victim.sample("anther_model_ready", model="flowers", version="2") == 1)
    with victim.channel() as channel:
        victim.prove_over(channel, pictures)


@pytest.mark.parametrize(
    "harm",
    [vanish, become_a_file, become_a_dangling_link, lock, lose_its_files, shrink_its_files],
    ids=lambda harm: harm.__name__,
)
def test_a_folder_of_models_that_turns_unreadable_does_not_end_serving(
    serving, pictures, harm: Callable[[Path], None]
) -> None:
    """The watcher may say in the log what it found; what serves goes on."""
    victim, root = serving
    harm(root)
    with victim.channel() as channel:
        for _ in range(5):
            time.sleep(WATCH_S)
            victim.prove_over(channel, pictures)
    assert victim.stop() == 0
    assert "Traceback" not in victim.errors.read_text()


def test_a_log_on_a_full_disk_does_not_hurt_serving(start_victim, pictures) -> None:
    """Every write to it fails, from the start to the end."""
    victim = start_victim(errors=Path("/dev/full"))
    with victim.channel() as channel:
        victim.prove_over(channel, pictures)
    assert victim.stop() == 0


def test_a_disk_that_fills_up_while_serving_does_not_hurt(serving, pictures) -> None:
    victim, _ = serving
    resource.prlimit(victim.process.pid, resource.RLIMIT_FSIZE, (0, 0))
    victim.prove(pictures)
    assert victim.stop() == 0


def _next_descriptor(pid: int) -> int:
    """The lowest that is free; looked at repeatedly, as the server has a file open now and then."""

    def lowest() -> int:
        time.sleep(0.02)
        used = {int(entry.name) for entry in Path(f"/proc/{pid}/fd").iterdir()}
        return min(set(range(len(used) + 1)) - used)

    return min(lowest() for _ in range(20))


def test_no_descriptors_left_for_new_connections_harms_no_old_ones(serving, pictures) -> None:
    """And once there are some again, those who waited are served."""
    victim, _ = serving
    pid = victim.process.pid
    with contextlib.ExitStack() as stack:
        channel = stack.enter_context(victim.channel())
        victim.prove_over(channel, pictures)
        soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (_next_descriptor(pid), hard))
        other = stack.enter_context(victim.channel())
        ready = grpc.channel_ready_future(other)
        with pytest.raises(grpc.FutureTimeoutError):
            ready.result(3 * WATCH_S)
        victim.prove_over(channel, pictures)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))
        ready.result(PATIENCE_S)
        victim.prove_over(other, pictures)
    assert "Traceback" not in victim.errors.read_text()
