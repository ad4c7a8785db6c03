"""A process of its own computes what the engine here computes, and its end is nobody's but its own."""

import json
import os
import shutil
import signal
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
from service.engines.engine import open_on_cpu
from service.versions.bystander import Bystander, BystanderFailed, question
from service.versions.bystander_process import serve

PATIENCE_S = 60


def stay(process: int) -> None:
    """Run as others do: on a busy machine an idle process may not come to its turn."""


@pytest.fixture
def bundle(models: Path) -> Bundle:
    return Repository(models).open("flowers")


@pytest.fixture
def bystander() -> Iterator[Bystander]:
    bystander = Bystander(Limits(), stay)
    yield bystander
    bystander.rest()


@pytest.fixture
def expected(bundle: Bundle, pictures):
    """`expected("daisy")`: what the engine in this process gives."""
    engine = open_on_cpu(bundle)
    preprocessing = bundle.manifest.preprocessing
    return lambda label: engine.run((preprocessing(pictures[label])[np.newaxis],)).probabilities[0]


def running(bystander: Bystander) -> int:
    assert bystander._running is not None
    return bystander._running.process.pid


def alive(process: int) -> bool:
    return Path(f"/proc/{process}").exists()


def test_it_computes_what_the_engine_here_computes(bystander, bundle, pictures, expected) -> None:
    for label in pictures:
        np.testing.assert_array_equal(bystander.compute(bundle, pictures[label]), expected(label))
    assert running(bystander) != os.getpid()


def test_pixels_are_computed_as_they_are(bystander, bundle, pictures, expected) -> None:
    pixels = bundle.manifest.preprocessing(pictures["daisy"])
    np.testing.assert_array_equal(bystander.compute(bundle, pixels), expected("daisy"))
    np.testing.assert_array_equal(
        bystander.compute(bundle, pixels[:, ::-1]), bystander.compute(bundle, pixels[:, ::-1].copy())
    )
    with pytest.raises(BystanderFailed, match="dimension"):
        bystander.compute(bundle, pixels[:8])


def test_a_refused_picture_ends_nothing(bystander, bundle, pictures, expected) -> None:
    with pytest.raises(BystanderFailed, match="ImageFormatRefused: the data is "):
        bystander.compute(bundle, b"junk")
    process = running(bystander)
    np.testing.assert_array_equal(bystander.compute(bundle, pictures["daisy"]), expected("daisy"))
    assert running(bystander) == process


def test_a_version_that_is_gone_from_the_disk_fails(bystander, pictures, tmp_path: Path, publish_bundle) -> None:
    publish_bundle(tmp_path)
    gone = Repository(tmp_path).open("flowers")
    shutil.rmtree(gone.path)
    with pytest.raises(BystanderFailed, match="BundleCorrupt"):
        bystander.compute(gone, pictures["daisy"])


def test_a_number_that_was_published_anew_is_another_model(bystander, pictures, tmp_path: Path, publish_bundle) -> None:
    publish_bundle(tmp_path)
    first = Repository(tmp_path).open("flowers")
    before = bystander.compute(first, pictures["daisy"])
    shutil.rmtree(first.path)
    publish_bundle(tmp_path, labels=("daisy", "tulips"), seed=1)
    second = Repository(tmp_path).open("flowers")
    assert second.version == first.version
    assert [len(before), len(bystander.compute(second, pictures["daisy"]))] == [3, 2]
    bystander.rest()
    with pytest.raises(BystanderFailed, match="published anew"):
        bystander.compute(first, pictures["daisy"])


def test_the_servers_limits_hold_there_too(bundle, pictures) -> None:
    bystander = Bystander(Limits(max_pixels=100), stay)
    with pytest.raises(BystanderFailed, match="ImageTooManyPixels"):
        bystander.compute(bundle, pictures["daisy"])
    bystander.rest()


def test_one_that_is_killed_is_replaced_after_a_while(bystander, bundle, pictures, eventually) -> None:
    bystander.compute(bundle, pictures["daisy"])
    killed = running(bystander)
    os.kill(killed, signal.SIGKILL)
    with pytest.raises(BystanderFailed, match="its process ended"):
        bystander.compute(bundle, pictures["daisy"])
    with pytest.raises(BystanderFailed, match=r"its process failed; another one starts in 0\.\d s"):
        bystander.compute(bundle, pictures["daisy"])
    assert not alive(killed)
    eventually(lambda: time.monotonic() > bystander._not_before)
    bystander.compute(bundle, pictures["daisy"])
    assert running(bystander) != killed


def test_where_the_system_gives_no_process_that_is_said(bystander, bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nothing/here")
    with pytest.raises(BystanderFailed, match=r"the system gives no process \(No such file or directory\)"):
        bystander.compute(bundle, b"")
    with pytest.raises(BystanderFailed, match="another one starts"):
        bystander.compute(bundle, b"")


def test_one_that_rests_has_no_process_until_it_is_needed(bystander, bundle, pictures) -> None:
    bystander.rest()
    bystander.compute(bundle, pictures["daisy"])
    process = running(bystander)
    bystander.rest()
    assert not alive(process)
    bystander.compute(bundle, pictures["daisy"])


def test_closing_frees_who_waits_for_an_answer(bystander, bundle, pictures) -> None:
    """However long the process would have taken."""
    bystander.compute(bundle, pictures["daisy"])
    os.kill(running(bystander), signal.SIGSTOP)
    told: list[str] = []

    def wait() -> None:
        try:
            bystander.compute(bundle, pictures["daisy"])
        except BystanderFailed as failure:
            told.append(str(failure))

    waiting = threading.Thread(target=wait)
    waiting.start()
    bystander.close()
    waiting.join(PATIENCE_S)
    assert told == ["its process ended"]
    bystander._not_before = 0.0
    with pytest.raises(BystanderFailed, match="shutting down"):
        bystander.compute(bundle, pictures["daisy"])


def test_one_that_was_never_needed_can_be_closed() -> None:
    Bystander(Limits()).close()


def test_its_process_steps_back(bundle, pictures) -> None:
    stepped_back: list[int] = []
    bystander = Bystander(Limits(), stepped_back.append)
    bystander.compute(bundle, pictures["daisy"])
    assert stepped_back == [running(bystander)]
    bystander.rest()


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
