"""What another distribution did to an installed one is told at the start, by name."""

import shutil
from pathlib import Path

import pytest

from anther import installation
from anther.installation import ModuleChanged, ModuleReplaced

MODULES = {"anther/__init__.py": "", "anther/_program/service/app.py": "run = 1\n"}
MANIFEST = "anther/_program/models/flowers/3/manifest.json"


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


@pytest.mark.parametrize("gone", ["anther/_program/service", "anther/_program"])
def test_a_folder_that_became_a_file_is_named(site: Path, gone: str) -> None:
    shutil.rmtree(site / gone)
    (site / gone).write_text("")
    with pytest.raises(ModuleChanged, match=r"service/app\.py is gone since Anther was installed"):
        installation.check(site)


def test_a_file_that_cannot_be_read_is_named(site: Path) -> None:
    file = site / "anther/_program/service/app.py"
    file.unlink()
    file.symlink_to(file.name)
    with pytest.raises(ModuleChanged, match=r"app\.py cannot be read any more \(Too many levels of symbolic links\)"):
        installation.check(site)


def test_an_embedded_model_that_is_gone_is_named(tmp_path: Path) -> None:
    install(tmp_path, "anther-0.1.0", {**MODULES, MANIFEST: "{}"})
    installation.check(tmp_path)
    shutil.rmtree(tmp_path / "anther/_program/models")
    with pytest.raises(ModuleChanged, match=r"models/flowers/3/manifest\.json is gone"):
        installation.check(tmp_path)


def test_lines_of_the_record_without_a_size_are_skipped(site: Path) -> None:
    record = site / "anther-0.1.0.dist-info/RECORD"
    record.write_text("\n".join([*(f"{module},," for module in MODULES), "anther/gone.py,sha256=x,"]))
    assert list(installation._recorded(site)) == []
    installation.check(site)


def test_a_record_in_another_encoding_is_read(site: Path) -> None:
    with (site / "anther-0.1.0.dist-info/RECORD").open("ab") as record:
        record.write(b"\nanther/caf\xe9.txt,sha256=x,3\n")
    assert len(list(installation._recorded(site))) == len(MODULES)
    installation.check(site)


def test_a_zip_passes(tmp_path: Path) -> None:
    (tmp_path / "anther.zip").write_bytes(b"PK")
    installation.check(tmp_path / "anther.zip")
