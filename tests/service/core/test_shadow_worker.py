"""A process of its own computes what the engine here computes, and its end is nobody's but its own."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from multiprocessing import Pipe
from pathlib import Path

import numpy as np
import pytest

from bundle.preprocessing import Limits
from bundle.repository import Bundle, Repository
from service.core.shadow_process import serve
from service.core.shadow_worker import ShadowWorker, ShadowWorkerFailed, question, step_back
from service.engines.engine import open_on_cpu

PATIENCE_S = 60


def stay(process: int) -> None:
    """Run as others do: on a busy machine an idle process may not come to its turn."""


@pytest.fixture
def bundle(models: Path) -> Bundle:
    return Repository(models).open("flowers")


@pytest.fixture
def shadow_worker() -> Iterator[ShadowWorker]:
    shadow_worker = ShadowWorker(Limits(), stay)
    yield shadow_worker
    shadow_worker.rest()


@pytest.fixture
def expected(bundle: Bundle, pictures):
    """`expected("daisy")`: what the engine in this process gives."""
    engine = open_on_cpu(bundle)
    preprocessing = bundle.manifest.preprocessing
    return lambda label: engine.run((preprocessing(pictures[label])[np.newaxis],)).probabilities[0]


def running(shadow_worker: ShadowWorker) -> int:
    assert shadow_worker._running is not None
    return shadow_worker._running.process.pid


def alive(process: int) -> bool:
    return Path(f"/proc/{process}").exists()


def test_it_computes_what_the_engine_here_computes(shadow_worker, bundle, pictures, expected) -> None:
    for label in pictures:
        np.testing.assert_array_equal(shadow_worker.compute(bundle, pictures[label]), expected(label))
    assert running(shadow_worker) != os.getpid()


def test_pixels_are_computed_as_they_are(shadow_worker, bundle, pictures, expected) -> None:
    pixels = bundle.manifest.preprocessing(pictures["daisy"])
    np.testing.assert_array_equal(shadow_worker.compute(bundle, pixels), expected("daisy"))
    np.testing.assert_array_equal(
        shadow_worker.compute(bundle, pixels[:, ::-1]), shadow_worker.compute(bundle, pixels[:, ::-1].copy())
    )
    with pytest.raises(ShadowWorkerFailed, match="dimension"):
        shadow_worker.compute(bundle, pixels[:8])


def test_a_refused_picture_ends_nothing(shadow_worker, bundle, pictures, expected) -> None:
    with pytest.raises(ShadowWorkerFailed, match="ImageFormatRefused: the data is "):
        shadow_worker.compute(bundle, b"junk")
    process = running(shadow_worker)
    np.testing.assert_array_equal(shadow_worker.compute(bundle, pictures["daisy"]), expected("daisy"))
    assert running(shadow_worker) == process


def test_a_version_that_is_gone_from_the_disk_fails(shadow_worker, pictures, tmp_path: Path, publish_bundle) -> None:
    publish_bundle(tmp_path)
    gone = Repository(tmp_path).open("flowers")
    shutil.rmtree(gone.path)
    with pytest.raises(ShadowWorkerFailed, match="BundleCorrupt"):
        shadow_worker.compute(gone, pictures["daisy"])


def test_a_number_that_was_published_anew_is_another_model(
    shadow_worker, pictures, tmp_path: Path, publish_bundle
) -> None:
    publish_bundle(tmp_path)
    first = Repository(tmp_path).open("flowers")
    before = shadow_worker.compute(first, pictures["daisy"])
    shutil.rmtree(first.path)
    publish_bundle(tmp_path, labels=("daisy", "tulips"), seed=1)
    second = Repository(tmp_path).open("flowers")
    assert second.version == first.version
    assert [len(before), len(shadow_worker.compute(second, pictures["daisy"]))] == [3, 2]
    shadow_worker.rest()
    with pytest.raises(ShadowWorkerFailed, match="published anew"):
        shadow_worker.compute(first, pictures["daisy"])


def test_the_servers_limits_hold_there_too(bundle, pictures) -> None:
    shadow_worker = ShadowWorker(Limits(max_pixels=100), stay)
    with pytest.raises(ShadowWorkerFailed, match="ImageTooManyPixels"):
        shadow_worker.compute(bundle, pictures["daisy"])
    shadow_worker.rest()


def test_one_that_is_killed_is_replaced_after_a_while(shadow_worker, bundle, pictures, eventually) -> None:
    shadow_worker.compute(bundle, pictures["daisy"])
    killed = running(shadow_worker)
    os.kill(killed, signal.SIGKILL)
    with pytest.raises(ShadowWorkerFailed, match="its process ended"):
        shadow_worker.compute(bundle, pictures["daisy"])
    with pytest.raises(ShadowWorkerFailed, match=r"its process failed; another one starts in 0\.\d s"):
        shadow_worker.compute(bundle, pictures["daisy"])
    assert not alive(killed)
    eventually(lambda: time.monotonic() > shadow_worker._not_before)
    shadow_worker.compute(bundle, pictures["daisy"])
    assert running(shadow_worker) != killed


def test_where_the_system_gives_no_process_that_is_said(shadow_worker, bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nothing/here")
    with pytest.raises(ShadowWorkerFailed, match=r"the system gives no process \(No such file or directory\)"):
        shadow_worker.compute(bundle, b"")
    with pytest.raises(ShadowWorkerFailed, match="another one starts"):
        shadow_worker.compute(bundle, b"")


def test_one_that_rests_has_no_process_until_it_is_needed(shadow_worker, bundle, pictures) -> None:
    shadow_worker.rest()
    shadow_worker.compute(bundle, pictures["daisy"])
    process = running(shadow_worker)
    shadow_worker.rest()
    assert not alive(process)
    shadow_worker.compute(bundle, pictures["daisy"])


def test_closing_frees_who_waits_for_an_answer(shadow_worker, bundle, pictures) -> None:
    """However long the process would have taken."""
    shadow_worker.compute(bundle, pictures["daisy"])
    os.kill(running(shadow_worker), signal.SIGSTOP)
    told: list[str] = []

    def wait() -> None:
        try:
            shadow_worker.compute(bundle, pictures["daisy"])
        except ShadowWorkerFailed as failure:
            told.append(str(failure))

    waiting = threading.Thread(target=wait)
    waiting.start()
    shadow_worker.close()
    waiting.join(PATIENCE_S)
    assert told == ["its process ended"]
    shadow_worker._not_before = 0.0
    with pytest.raises(ShadowWorkerFailed, match="shutting down"):
        shadow_worker.compute(bundle, pictures["daisy"])


def test_one_that_was_never_needed_can_be_closed() -> None:
    ShadowWorker(Limits()).close()


def test_its_process_steps_back(bundle, pictures) -> None:
    stepped_back: list[int] = []
    shadow_worker = ShadowWorker(Limits(), stepped_back.append)
    shadow_worker.compute(bundle, pictures["daisy"])
    assert stepped_back == [running(shadow_worker)]
    shadow_worker.rest()


# The other side, in this process


@pytest.fixture
def connection() -> Iterator:
    """To a `serve` on a thread, which ends with it."""
    here, there = Pipe()
    thread = threading.Thread(target=serve, args=(there, Limits()))
    thread.start()
    yield here
    here.close()
    thread.join(PATIENCE_S)
    there.close()
    assert not thread.is_alive()


def test_the_other_side_answers_until_this_one_is_gone(connection, bundle, pictures, expected) -> None:
    for label in ("daisy", "roses"):
        connection.send_bytes(json.dumps(question(bundle, b"")).encode())
        connection.send_bytes(pictures[label])
        answer = connection.recv_bytes()
        assert answer[:1] == b"+"
        np.testing.assert_array_equal(np.frombuffer(answer[1:], np.float32), expected(label))


def test_the_other_side_says_what_failed(connection) -> None:
    connection.send_bytes(b'{"folder": "/nothing/here", "version": 1, "identity": "", "shape": null}')
    connection.send_bytes(b"")
    answer = connection.recv_bytes()
    assert answer.startswith(b"-BundleCorrupt: /nothing/here/manifest.json: unreadable")


# Priority


@pytest.fixture
def child() -> Iterator[int]:
    """The id of a process that does nothing."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process.pid


def test_an_idle_process_is_scheduled_as_one(child: int) -> None:
    assert step_back(child) is True
    assert os.sched_getscheduler(child) == os.SCHED_IDLE
    assert os.sched_getscheduler(0) != os.SCHED_IDLE


@pytest.fixture
def forbidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(process: int, policy: int, parameter: os.sched_param) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "sched_setscheduler", refuse)


def test_where_that_is_forbidden_it_becomes_as_nice_as_can_be(forbidden, child: int, caplog) -> None:
    assert step_back(child) is False
    assert os.getpriority(os.PRIO_PROCESS, child) == 19
    assert "cannot be scheduled as idle (Operation not permitted)" in caplog.text


def test_a_process_that_has_ended_needs_no_priority(forbidden) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    assert step_back(process.pid) is False
