"""What another distribution did to an installed one is told at the start, by name."""

from pathlib import Path

import pytest

from anther import installation
from anther.installation import ModuleChanged, ModuleReplaced

MODULES = {"anther/__init__.py": "", "anther/_program/service/app.py": "run = 1\n"}


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder of installed packages: ours, and one whose name begins as ours does."""
    install(tmp_path, "anther-0.1.0", MODULES)
    install(tmp_path, "anther_extra-1.0", {"extra.py": "1"})
    return tmp_path


def install(site: Path, name: str, modules: dict[str, str]) -> None:
    folder = site / f"{name}.dist-info"
    folder.mkdir()
    lines = [f"{name}.dist-info/RECORD,,", "../../../bin/anther,sha256=x,200", "anther/__pycache__/cli.cpython.pyc,,"]
    for module, text in modules.items():
        (site / module).parent.mkdir(parents=True, exist_ok=True)
        (site / module).write_text(text)
        lines.append(f"{module},sha256=x,{len(text)}")
    (folder / "RECORD").write_text("\n".join(lines))


def test_what_was_installed_passes(site: Path) -> None:
    assert len(list(installation._recorded(site))) == len(MODULES)
    installation.check(site)


def test_a_checkout_passes() -> None:
    installation.check()


def test_an_installation_without_a_record_passes(site: Path) -> None:
    (site / "anther-0.1.0.dist-info/RECORD").unlink()
    (site / "anther/_program/service/app.py").write_text("other\n" * 9)
    installation.check(site)


@pytest.mark.parametrize("module", MODULES)
def test_another_distribution_is_named(site: Path, module: str) -> None:
    install(site, "other-2.0", {module: "run = 'elsewhere'\n"})
    with pytest.raises(ModuleReplaced, match="`pip uninstall other`") as raised:
        installation.check(site)
    assert raised.value.facts == {"file": str(site / module), "by": "other"}


def test_where_no_other_is_known_the_file_is_named(site: Path) -> None:
    file = site / "anther/_program/service/app.py"
    file.write_text("run = 22\n")
    with pytest.raises(ModuleChanged, match=r"app\.py has changed from 8 to 9 bytes since Anther was installed"):
        installation.check(site)
    file.unlink()
    with pytest.raises(ModuleChanged, match=r"app\.py is gone since Anther was installed"):
        installation.check(site)
