import io
import tarfile

import pytest
from click.testing import CliRunner

from anther.files import locked_folder
from training.commands.data import flowers
from training.dataset.flowers import FLOWERS, bring
from training.errors import ArchiveRefused, DiskUnusable, DownloadFailed, FolderTaken
from training.progress import Silent


def archive(*names):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = 3
            tar.addfile(info, io.BytesIO(b"abc"))
    return buffer.getvalue()


@pytest.fixture
def server(server):
    server.content = archive("flower_photos/roses/a.jpg", "flower_photos/LICENSE.txt")
    return server


def test_the_photos_appear_whole_and_alone(server, tmp_path):
    folder = tmp_path / "deep" / "flowers"
    bring(server.published(), folder, Silent())
    assert sorted(path.name for path in folder.iterdir()) == ["LICENSE.txt", "roses"]
    assert [path.name for path in folder.parent.iterdir()] == ["flowers"]


def test_an_existing_folder_is_left_alone(server, tmp_path):
    with pytest.raises(FolderTaken, match="already exists; give a folder that does not exist yet"):
        bring(server.published(), tmp_path, Silent())
    assert server.asked == []


def test_a_refused_archive_is_not_taken_for_another_one(server, tmp_path):
    server.content = archive("../escape.jpg")
    with pytest.raises(ArchiveRefused):
        bring(server.published(), tmp_path / "flowers", Silent())
    server.content = archive("flower_photos/roses/a.jpg")
    bring(server.published(), tmp_path / "flowers", Silent())
    assert [path.name for path in tmp_path.iterdir()] == ["flowers"]


def test_what_arrived_before_a_failure_is_kept_for_the_next_time(server, tmp_path):
    server.cuts, server.statuses = [50], [0, 404]
    with pytest.raises(DownloadFailed):
        bring(server.published(), tmp_path / "flowers", Silent())
    assert not (tmp_path / "flowers").exists()
    bring(server.published(), tmp_path / "flowers", Silent())
    assert server.asked[-1]["Range"] == "bytes=50-"
    assert (tmp_path / "flowers" / "roses" / "a.jpg").exists()


def test_two_downloads_at_once_do_not_meet(server, tmp_path):
    work = tmp_path / ".flowers.download"
    work.mkdir()
    with locked_folder(work), pytest.raises(FolderTaken, match="is being downloaded by another command"):
        bring(server.published(), tmp_path / "flowers", Silent())


def test_a_disk_that_refuses_is_a_sentence(server, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(
        DiskUnusable, match="cannot be written: Not a directory; free some space or give another FOLDER"
    ):
        bring(server.published(), tmp_path / "file" / "flowers", Silent())


def test_the_command_takes_a_mirror_and_another_digest(server, tmp_path):
    folder = tmp_path / "flowers"
    published = server.published()
    done = CliRunner().invoke(flowers, [str(folder), "--url", published.url, "--sha256", published.sha256.upper()])
    assert done.exit_code == 0, done.output
    assert f"{folder} is ready; next: anther retrain --data {folder}" in done.stdout
    assert (folder / "roses" / "a.jpg").exists()


def test_a_mirror_must_hold_the_published_archive(server, tmp_path):
    """Its size alone gives another one away, before it is downloaded."""
    done = CliRunner().invoke(flowers, [str(tmp_path / "flowers"), "--url", server.url])
    assert isinstance(done.exception, DownloadFailed)
    assert "the published file has 228,813,984" in str(done.exception)


def test_the_published_archive_is_pinned():
    assert FLOWERS.url.startswith("https://")
    assert len(bytes.fromhex(FLOWERS.sha256)) == 32
    assert FLOWERS.size == 228_813_984
