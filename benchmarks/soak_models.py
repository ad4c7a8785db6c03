"""A folder of models in which a new version appears again and again and old ones go."""

import shutil
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

from bundle.repository import Repository

_KEPT = 3  # versions; the last two may be in service while one takes over from the other


class Publisher:
    """Publishes copies of one version every `every_s` seconds from a thread of its own, while it is entered."""

    def __init__(self, root: Path, source: Path, name: str, every_s: float) -> None:
        self.version = 0
        self._repository = Repository(root)
        self._source, self._name, self._every_s = source, name, every_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._publish()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._every_s):
            self._publish()
            self._prune()

    def _publish(self) -> None:
        def write(staging: Path) -> None:
            for file in self._source.iterdir():
                shutil.copyfile(file, staging / file.name)

        self.version = self._repository.publish(self._name, write).version

    def _prune(self) -> None:
        for version in self._repository.versions(self._name)[:-_KEPT]:
            shutil.rmtree(self._repository.root / self._name / str(version))
