"""The process that decodes slow images: same pixels, same refusals, limits, and an end when nobody waits."""

import dataclasses
import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anther import program
from bundle.errors import ImageRefused, ImageTooCostly
from bundle.preprocessing import Limits, Preprocessing
from service.scheduling.decode_process import MAX_CPU_S
from service.scheduling.decoder import DecodeProcess, NobodyWaits, Over
from service.scheduling.scheduler import Prepared

PREPROCESSING = Preprocessing(resize=64, crop=56)
LIMITS = Limits(max_pixels=30 * 10**6)
_ORPHAN = """
import os, sys
from service.scheduling.decoder import DecodeProcess
from bundle.preprocessing import Limits, Preprocessing
decoder = DecodeProcess(Limits(), print)
decoder.prepare(sys.stdin.buffer.read(), Preprocessing(), lambda: None)
print(decoder._running.process.pid, flush=True)
os.kill(os.getpid(), 9)
"""


def encoded(mode: str, kind: str, size: tuple[int, int] = (90, 70)) -> bytes:
    channels = len(Image.new(mode, (1, 1)).getbands())
    noise = np.random.default_rng(7).integers(0, 256, (size[1], size[0], channels), np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise.squeeze(), mode).save(file, kind)
    return file.getvalue()


@pytest.fixture(scope="module")
def large() -> bytes:
    """Takes longer than the 20 ms in which nobody looks whether somebody still waits."""
    file = io.BytesIO()
    Image.new("RGB", (5000, 5000)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def ends() -> list[str]:
    return []


@pytest.fixture(scope="module")
def decoder(ends: list[str]) -> Iterator[DecodeProcess]:
    decoder = DecodeProcess(LIMITS, ends.append)
    yield decoder
    decoder.end("closed")


@pytest.fixture
def prepare(decoder: DecodeProcess) -> Callable[[bytes], Prepared]:
    return lambda image: decoder.prepare(image, PREPROCESSING, lambda: None)


@pytest.mark.parametrize(
    ("mode", "kind"), [("RGB", "JPEG"), ("CMYK", "JPEG"), ("RGBA", "PNG"), ("L", "GIF"), ("RGB", "BMP"), ("L", "TIFF")]
)
def test_the_pixels_are_those_that_this_process_would_get(prepare, mode: str, kind: str) -> None:
    image = encoded(mode, kind)
    found = prepare(image)
    np.testing.assert_array_equal(found.pixels, PREPROCESSING(image, LIMITS))
    assert min(found.decode, found.preprocess) > 0


@pytest.mark.parametrize("image", [b"", b"no image", encoded("RGB", "JPEG")[:2000], encoded("L", "PNG", (5001, 6000))])
def test_a_refusal_is_the_one_that_this_process_would_make(prepare, image: bytes) -> None:
    with pytest.raises(ImageRefused) as here:
        PREPROCESSING(image, LIMITS)
    with pytest.raises(ImageRefused) as there:
        prepare(image)
    assert type(there.value) is type(here.value)
    assert (str(there.value), there.value.facts) == (str(here.value), here.value.facts)


def test_an_image_that_takes_more_memory_than_its_size_explains_is_refused(decoder, prepare, ends) -> None:
    """One of 10 x 1,000 pixels whose short side becomes 4,096: 6.7 GB."""
    huge = dataclasses.replace(PREPROCESSING, resize=4096)
    with pytest.raises(ImageTooCostly, match="memory"):
        decoder.prepare(encoded("L", "PNG", (10, 1000)), huge, lambda: None)
    assert ends.pop() == "memory"
    assert prepare(encoded("L", "PNG")).pixels.shape == (56, 56, 3)


@pytest.mark.parametrize("reason", ["left", "deadline"])
def test_it_is_killed_when_nobody_waits(decoder, prepare, large: bytes, ends, reason: Over) -> None:
    prepare(encoded("L", "PNG"))
    process = decoder._running.process
    with pytest.raises(NobodyWaits):
        decoder.prepare(large, PREPROCESSING, lambda: reason)
    assert process.returncode == -signal.SIGKILL
    assert ends.pop() == reason
    assert prepare(encoded("L", "PNG")).pixels.shape == (56, 56, 3)


@pytest.mark.parametrize(
    ("number", "reason", "words"),
    [(signal.SIGXCPU, "cpu", f"more than {MAX_CPU_S} s"), (signal.SIGSEGV, "crash", "SIGSEGV")],
)
def test_an_image_that_ends_the_process_is_refused(decoder, prepare, large, ends, number, reason, words) -> None:
    def end_it() -> None:
        os.kill(decoder._running.process.pid, number)

    prepare(encoded("L", "PNG"))
    with pytest.raises(ImageTooCostly, match=words):
        decoder.prepare(large, PREPROCESSING, end_it)
    assert ends.pop() == reason
    assert prepare(encoded("L", "PNG")).pixels.shape == (56, 56, 3)


def test_one_that_died_without_an_image_is_replaced(decoder, prepare, ends) -> None:
    prepare(encoded("L", "PNG"))
    decoder._running.process.kill()
    decoder._running.process.wait()
    assert prepare(encoded("L", "PNG")).pixels.shape == (56, 56, 3)
    assert ends.pop() == "crash"


def test_it_does_not_outlive_its_server(eventually) -> None:
    """Though nothing ended it: the server was killed."""
    server = subprocess.run(
        [sys.executable, "-c", _ORPHAN],
        input=encoded("L", "PNG"),
        capture_output=True,
        env=program.environment(),
        check=False,
    )
    assert server.returncode == -signal.SIGKILL, server.stderr
    eventually(lambda: not _runs(int(server.stdout)))


def test_it_imports_no_more_than_it_needs() -> None:
    """It starts while an image waits, and its memory is counted for each lane."""
    code = "import sys, service.scheduling.decode_process; print(*{name.split('.')[0] for name in sys.modules})"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, env=program.environment(), check=True)
    assert not {"grpc", "onnxruntime", "prometheus_client", "asyncio", "click"} & {*found.stdout.decode().split()}


def _runs(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
