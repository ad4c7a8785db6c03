"""Whether an installed wheel's modules are still its own, by their sizes: distributions may overwrite each other's."""

import os
from collections.abc import Iterator
from pathlib import Path

from anther.errors import AntherError

_PACKAGE = "anther/"


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
    """Raises `ModuleReplaced` or `ModuleChanged`. A checkout, and an installation without a record, pass."""
    folder = str(site)
    for name, size in _recorded(site):
        try:
            found = os.stat(f"{folder}/{name}").st_size  # noqa: PTH116 - hundreds at each start, and a Path is slow
        except FileNotFoundError:
            found = None
        if found != size:
            raise _replaced(site, name, size, found)


def _replaced(site: Path, name: str, size: int, found: int | None) -> ModuleReplaced | ModuleChanged:
    by = _claimant(site, name)
    if by is not None:
        return ModuleReplaced(site / name, by)
    return ModuleChanged(site / name, "is gone" if found is None else f"has changed from {size} to {found} bytes")


def _recorded(site: Path) -> Iterator[tuple[str, int]]:
    """Our modules and their sizes, as the installer wrote them down."""
    records = [
        Path(entry) / "RECORD"
        for entry in os.scandir(site)
        if entry.name.startswith("anther-") and entry.name.endswith(".dist-info")
    ]
    for record in records[:1]:
        if record.exists():
            for line in record.read_text().splitlines():
                if line.startswith(_PACKAGE) and line.partition(",")[0].endswith(".py"):
                    name, _, size = line.rsplit(",", 2)
                    yield name, int(size)


def _claimant(site: Path, name: str) -> str | None:
    """Another distribution that installed a file of this name."""
    for record in sorted(site.glob("*.dist-info/RECORD")):
        distribution = record.parent.name.partition("-")[0]
        if distribution != "anther" and f"\n{name}," in "\n" + record.read_text(errors="replace"):
            return distribution
    return None
