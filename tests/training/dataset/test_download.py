import json
import random

import pytest

from training.dataset import download
from training.errors import DownloadFailed
from training.progress import Silent

CONTENT = random.Random(0).randbytes(700_000)  # more than two chunks


class Speaker(Silent):
    def __init__(self):
        self.said = []

    def say(self, text):
        self.said.append(text)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "photos.tgz"


@pytest.fixture
def fetch(path):
    """fetch(published) downloads to `path` without waiting, and returns the pauses that were asked for."""

    def one(published, reporter=None):
        pauses = []
        download.fetch(published, path, reporter or Silent(), pauses.append)
        return pauses

    return one


@pytest.fixture
def server(server):
    server.content = CONTENT
    return server


def names(path):
    return sorted(file.name for file in path.parent.iterdir())


def test_a_whole_file_arrives_and_nothing_is_left_beside_it(server, fetch, path):
    assert fetch(server.published()) == []
    assert path.read_bytes() == CONTENT
    assert names(path) == ["photos.tgz"]
    assert server.asked == [{}]


def test_what_is_there_is_not_downloaded_again(server, fetch, path):
    fetch(server.published())
    fetch(server.published())
    assert len(server.asked) == 1
    path.write_bytes(b"damaged since")
    fetch(server.published())
    assert path.read_bytes() == CONTENT


def test_a_cut_download_goes_on_where_it_broke_off(server, fetch, path):
    """The rest is asked for on the condition that the file is still the same one."""
    server.cuts = [300_000, 1_000]
    reporter = Speaker()
    pauses = fetch(server.published(), reporter)
    assert path.read_bytes() == CONTENT
    ranges = ["bytes=300000-", "bytes=301000-"]
    assert server.asked == [{}, *({"Range": span, "If-Range": '"1"'} for span in ranges)]
    assert len(pauses) == 2
    assert reporter.said[0] == "download interrupted at 300,000 bytes (the connection was closed early); trying again"


def test_a_later_call_goes_on_too(server, fetch, path):
    server.cuts = [300_000]
    server.statuses = [0, 404]
    with pytest.raises(DownloadFailed, match="404"):
        fetch(server.published())
    assert path.with_name("photos.tgz.partial").stat().st_size == 300_000
    fetch(server.published())
    assert path.read_bytes() == CONTENT
    assert server.asked[-1]["Range"] == "bytes=300000-"


def test_a_file_that_changed_meanwhile_is_begun_anew(server, fetch, path):
    server.cuts = [300_000]
    server.statuses = [0, 404]
    with pytest.raises(DownloadFailed):
        fetch(server.published())
    server.content, server.etag = CONTENT[::-1], '"2"'
    fetch(server.published())
    assert path.read_bytes() == CONTENT[::-1]


def test_a_server_without_ranges_sends_everything_again(server, fetch, path):
    server.ranges = False
    server.cuts = [300_000]
    fetch(server.published())
    assert path.read_bytes() == CONTENT


def test_another_address_does_not_continue_the_first(server, fetch, path):
    path.with_name("photos.tgz.partial").write_bytes(b"x" * 1000)
    path.with_name("photos.tgz.partial.json").write_text(json.dumps({"url": "http://elsewhere/", "validator": ""}))
    fetch(server.published())
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize("notes", ["{", "[]", '{"validator": 1}'])
def test_damaged_notes_of_an_earlier_call_begin_anew(server, fetch, path, notes):
    path.with_name("photos.tgz.partial").write_bytes(b"x" * 1000)
    path.with_name("photos.tgz.partial.json").write_text(notes)
    fetch(server.published())
    assert path.read_bytes() == CONTENT
    assert server.asked == [{}]


def test_a_weak_validator_is_not_used_as_a_condition(server, fetch, path):
    """If-Range is defined for strong ones alone; the digest decides in the end."""
    server.etag = 'W/"1"'
    server.cuts = [300_000]
    fetch(server.published())
    assert server.asked[-1] == {"Range": "bytes=300000-"}
    assert path.read_bytes() == CONTENT


def test_another_range_than_asked_for_is_not_appended(server, fetch, path):
    server.cuts = [300_000]
    server.content_range = "bytes 5-699999/700000"
    reporter = Speaker()
    fetch(server.published(), reporter)
    assert "another range" in reporter.said[1]
    assert path.read_bytes() == CONTENT


def test_a_whole_partial_file_is_only_proved(server, fetch, path):
    path.with_name("photos.tgz.partial").write_bytes(CONTENT)
    fetch(server.published())
    assert server.asked == []
    assert path.read_bytes() == CONTENT


def test_a_whole_partial_file_of_unknown_size_is_recognised_by_the_server(server, fetch, path):
    partial = path.with_name("photos.tgz.partial")
    partial.write_bytes(CONTENT)
    partial.with_name(partial.name + ".json").write_text(json.dumps({"url": server.url, "validator": '"1"'}))
    assert fetch(server.published(size=None)) == []
    assert path.read_bytes() == CONTENT


def test_a_partial_file_that_is_too_long_is_begun_anew(server, fetch, path):
    partial = path.with_name("photos.tgz.partial")
    partial.write_bytes(CONTENT + b"x")
    partial.with_name(partial.name + ".json").write_text(json.dumps({"url": server.url, "validator": '"1"'}))
    fetch(server.published())
    assert path.read_bytes() == CONTENT
    assert len(server.asked) == 2


def test_another_size_is_refused_before_it_is_downloaded(server, fetch, path):
    with pytest.raises(DownloadFailed, match=r"has 700,000 bytes there, and the published file has 12; give another"):
        fetch(server.published(size=12))
    assert names(path) == []


def test_another_content_is_deleted_and_said(server, fetch, path):
    with pytest.raises(DownloadFailed, match=r"its SHA-256 is .{64}, expected 0{64}, so it was deleted"):
        fetch(server.published(sha256="0" * 64))
    assert names(path) == []


def test_a_stream_without_length_ends_at_the_known_size(server, fetch, path):
    server.length = False
    published = server.published()
    server.content += b"and on and on"
    with pytest.raises(DownloadFailed, match="longer than 700,000 bytes"):
        fetch(published)
    server.content = CONTENT
    fetch(server.published(size=None))
    assert path.read_bytes() == CONTENT


def test_a_server_in_trouble_is_asked_again_after_growing_pauses(server, fetch, path):
    server.statuses = [503, 500, 429]
    pauses = fetch(server.published())
    assert path.read_bytes() == CONTENT
    assert len(pauses) == 3
    assert all(2**number / 2 <= pause <= 2**number for number, pause in enumerate(pauses))


def test_endless_trouble_is_given_up_with_what_to_do(server, fetch):
    server.statuses = [503] * 50
    with pytest.raises(DownloadFailed, match=r"503 Service Unavailable; check the connection and run the command"):
        fetch(server.published())
    assert len(server.asked) == 6


def test_a_refusal_is_not_asked_again(server, fetch):
    server.statuses = [403]
    with pytest.raises(DownloadFailed, match="403 Forbidden; check the address"):
        fetch(server.published())
    assert len(server.asked) == 1


def test_nobody_listening_is_a_sentence(server, fetch):
    with pytest.raises(DownloadFailed, match="refused"):
        fetch(server.published(url="http://127.0.0.1:1/photos.tgz"))


def test_only_http_is_opened(server, fetch):
    with pytest.raises(DownloadFailed, match="no HTTP address"):
        fetch(server.published(url="file:///etc/passwd"))
