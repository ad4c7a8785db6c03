"""Whether an installed wheel's modules and embedded model are still its own, by their sizes: distributions may
overwrite each other's.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from anther.errors import AntherError

_PACKAGE = "anther/"
_CHECKED = (".py", "/manifest.json")  # the latter stands for the embedded model


class ModuleReplaced(AntherError):
    def __init__(self, file: Path, by: str) -> None:
        super().__init__(
            f"{file} is Anther's, but the distribution '{by}' has installed a file of its own there; run "
            f"`pip uninstall {by}` and then `pip install --force-reinstall --no-deps anther`",
            file=file,
            by=by,
        )


class ModuleChanged(AntherError):
    def __init__(self, file: Path, how: str) -> None:
        super().__init__(
            f"{file} {how} since Anther was installed; run `pip install --force-reinstall --no-deps anther`",
            file=file,
            how=how,
        )


def check(site: Path = Path(__file__).parents[1]) -> None:
    """Raises `ModuleReplaced` or `ModuleChanged`. A checkout, a zip, and an installation without a record pass."""
    folder = str(site)
    for name, size in _recorded(site):
        how = _change(f"{folder}/{name}", size)
        if how is not None:
            by = _claimant(site, name)
            raise ModuleChanged(site / name, how) if by is None else ModuleReplaced(site / name, by)


def _change(file: str, size: int) -> str | None:
    """What has become of a file; None where its size is as it was."""
    try:
        found = os.stat(file).st_size  # noqa: PTH116 - hundreds at each start, and a Path is slow
    except (FileNotFoundError, NotADirectoryError):
        return "is gone"
    except OSError as exc:
        return f"cannot be read any more ({exc.strerror})"
    return None if found == size else f"has changed from {size} to {found} bytes"


def _recorded(site: Path) -> Iterator[tuple[str, int]]:
    """Our files and their sizes, as far as the installer wrote them down."""
    records = [
        Path(entry) / "RECORD"
        for entry in (os.scandir(site) if site.is_dir() else ())
        if entry.name.startswith("anther-") and entry.name.endswith(".dist-info")
    ]
    for record in records[:1]:
        if record.is_file():
            for line in record.read_text(encoding="utf-8", errors="replace").splitlines():
                if line.startswith(_PACKAGE) and line.partition(",")[0].endswith(_CHECKED):
                    name, _, size = line.rsplit(",", 2)
                    if size.isdecimal():  # some installers leave it out
                        yield name, int(size)


def _claimant(site: Path, name: str) -> str | None:
    """Another distribution that installed a file of this name."""
    for record in sorted(site.glob("*.dist-info/RECORD")):
        distribution = record.parent.name.partition("-")[0]
        if distribution != "anther" and f"\n{name}," in "\n" + record.read_text(encoding="utf-8", errors="replace"):
            return distribution
    return None
