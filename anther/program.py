"""Where the program's own packages are, whatever folder Python was started in.

`service`, `training` and `bundle` are common names. A project may have folders or packages called so, and Python would
take those first. Importing this module puts the folder that holds ours before all others on `sys.path`; processes that
`multiprocessing` starts inherit that path. A process that is started as a command runs its module with
`python -m anther.program MODULE ARGUMENTS`.
"""

import importlib.util
import os
import sys
from pathlib import Path

from anther.errors import AntherError

PACKAGES = ("bundle", "service", "training")
_INSTALLED = Path(__file__).parent / "_program"  # where a wheel has them; in a checkout they lie beside this package
ROOT = _INSTALLED if _INSTALLED.is_dir() else Path(__file__).parents[1]
EMBEDDED_MODELS = ROOT / "models"

if sys.path[:1] != [str(ROOT)]:
    sys.path.insert(0, str(ROOT))


def holds_installed_models(folder: Path) -> bool:
    """Whether `folder` is the embedded models of an installed distribution; a checkout's belong to its user."""
    return ROOT == _INSTALLED and folder.resolve() == EMBEDDED_MODELS.resolve()


def command(module: str, *arguments: object) -> list[str]:
    """The command line of a Python process that runs one of our own modules, with `environment`."""
    return [sys.executable, "-P", "-m", "anther.program", module, *map(str, arguments)]


def environment() -> dict[str, str]:
    """What is in force here, with the same search path."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path or "." for path in sys.path)}


class PackageHidden(AntherError):
    def __init__(self, package: str, found: str) -> None:
        super().__init__(
            f"Python takes another package '{package}' ({found}) for Anther's own, since it was imported before or "
            "has an import hook; run `anther` where that is not so, such as in a virtual environment of its own",
            package=package,
            found=found,
        )


class PackageMissing(AntherError):
    def __init__(self, package: str) -> None:
        super().__init__(
            f"Anther's package '{package}' is not in {ROOT}; run `pip install --force-reinstall --no-deps anther`, "
            "since Anther runs neither from a zip nor with a part of its files",
            package=package,
        )


def check() -> None:
    """Raises `PackageMissing`, or `PackageHidden` where something goes before `sys.path`: an import that has been, or
    an import hook.
    """
    for package in PACKAGES:
        if not (ROOT / package).is_dir():
            raise PackageMissing(package)
        found = _found(package)
        if found != str(ROOT / package) and os.path.realpath(found) != os.path.realpath(ROOT / package):
            raise PackageHidden(package, found)


def _found(package: str) -> str:
    """The folder or file that `import package` takes."""
    module = sys.modules.get(package)
    if module is not None:
        return next(iter(getattr(module, "__path__", ())), getattr(module, "__file__", None) or "built in")
    spec = importlib.util.find_spec(package)
    return "nothing" if spec is None else next(iter(spec.submodule_search_locations or ()), spec.origin or "built in")


if __name__ == "__main__":
    import runpy

    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
