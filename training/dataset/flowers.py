"""TensorFlow's flower photos: 3,670 photos of five classes, under Creative Commons Attribution."""

import shutil
from pathlib import Path

from anther.files import locked_folder
from training.dataset.archive import unpack
from training.dataset.download import Published, fetch
from training.errors import DiskUnusable, FolderTaken
from training.progress import Reporter

# Size and digest are those that TensorFlow Datasets publishes for its `tf_flowers`.
FLOWERS = Published(
    url="https://storage.googleapis.com/download.tensorflow.org/example_images/flower_photos.tgz",
    sha256="4c54ace7911aaffe13a365c34f650e71dd5bf1be0a58b464e5a7183e3e595d9c",
    size=228_813_984,
)


def bring(published: Published, folder: Path, reporter: Reporter) -> None:
    """Download and unpack an archive of photos into `folder`, which appears whole or not at all.

    What has arrived is kept in a hidden folder beside it until then. Raises `FolderTaken`, `DownloadFailed`,
    `ArchiveRefused` or `DiskUnusable`.
    """
    if folder.exists():
        raise FolderTaken(folder)
    work = folder.with_name(f".{folder.name}.download")
    try:
        work.mkdir(parents=True, exist_ok=True)
        with locked_folder(work, wait=False):  # two downloads would write into one file
            archive = work / f"{published.sha256[:16]}.tgz"  # so that a mirror's is never taken for another's
            fetch(published, archive, reporter)
            reporter.say("unpacking")
            unpack(archive, work / "unpacked").rename(folder)
            shutil.rmtree(work)
    except BlockingIOError as exc:
        raise FolderTaken(folder, "is being downloaded by another command") from exc
    except OSError as exc:
        raise DiskUnusable(folder, exc.strerror or str(exc), "free some space or give another FOLDER") from exc
