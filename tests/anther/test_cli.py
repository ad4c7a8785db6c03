"""The command line and the public face: what is imported when, and how a missing extra is told."""

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import anther
from anther import CallFailed, Client, cli, program

COMMANDS = [
    "serve", "models", "token", "classify", "retrain", "train", "evaluate", "inspect", "export", "sign",
    "compare", "data",
]  # fmt: skip
TRAINING = ["torch", "torchvision", "onnx", "onnxscript", "jinja2", "matplotlib", "scipy"]
ROOT = Path(__file__).parents[2]
PATIENCE_S = 120

BLOCK = """
import importlib.abc, sys
class Blocked(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {names!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Blocked())
"""


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=PATIENCE_S)


def without(names: list[str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """`anther ARGUMENTS` where these packages are not installed."""
    return python(BLOCK.format(names=set(names)) + "from anther import cli; cli.main()", *arguments)


def loaded(code: str) -> set[str]:
    """Top-level modules in memory after `code`."""
    done = python(f"{code}\nimport sys; print(*{{name.partition('.')[0] for name in sys.modules}}, file=sys.stderr)")
    assert done.returncode == 0, done.stderr
    return set(done.stderr.splitlines()[-1].split())


# Help


def test_help_lists_every_command() -> None:
    result = CliRunner().invoke(cli.cli, ["--help"])
    assert result.exit_code == 0
    listed = [line.split()[0] for line in result.stdout.partition("Commands:")[2].splitlines() if line.strip()]
    assert listed == COMMANDS


def test_a_mistyped_command_names_the_nearest() -> None:
    result = CliRunner().invoke(cli.cli, ["retrian"])
    assert result.exit_code == 2
    assert "retrain" in result.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_explained_with_its_default(command: str) -> None:
    context = click.Context(cli.cli)
    found = cli.cli.get_command(context, command)
    for option in (parameter for parameter in found.params if isinstance(parameter, click.Option)):
        assert option.help, option.name
        shown = option.show_default or "[default:" in option.help
        assert shown or option.is_flag or option.to_info_dict()["default"] is None, option.name
    assert CliRunner().invoke(cli.cli, [command, "--help"]).exit_code == 0


@pytest.mark.parametrize("arguments", [["nope"], ["serve", "--nope"], ["classify"], ["train", "--device", "tpu"]])
def test_wrong_usage_is_exit_code_2(arguments: list[str]) -> None:
    done = python("from anther import cli; cli.main()", *arguments)
    assert done.returncode == 2
    assert "Usage: anther" in done.stderr
    assert done.stdout == ""


def test_an_unknown_command_is_named() -> None:
    result = CliRunner().invoke(cli.cli, ["bloom"])
    assert result.exit_code == 2
    assert "No such command 'bloom'" in result.stderr


@pytest.mark.parametrize("group", [[], ["models"], ["token"], ["data"]])
def test_a_list_of_commands_has_a_whole_line_for_each_in_80_columns(group: list[str]) -> None:
    listed = CliRunner().invoke(cli.cli, [*group, "--help"], terminal_width=80).stdout.split("Commands:\n")[1]
    lines = listed.splitlines()
    assert len(lines) > 1
    assert all(len(line) <= 80 and line.endswith(".") and not line.endswith("...") for line in lines)
    assert all(line[2] != " " for line in lines)


def test_help_and_version_need_no_extra() -> None:
    for arguments in (["--help"], ["--version"], *([command, "--help"] for command in COMMANDS)):
        done = without(list(cli._EXTRAS), *arguments)
        assert (done.returncode, done.stderr) == (0, ""), arguments


# Missing extras


@pytest.mark.parametrize(
    ("command", "package", "extra"),
    [
        ("serve", "numpy", "cpu"), ("models", "PIL", "cpu"), ("serve", "uvloop", "cpu"),
        ("serve", "onnxruntime", "cpu"), ("serve", "prometheus_client", "cpu"),
        ("train", "numpy", "training"), ("data", "PIL", "training"), ("train", "torch", "training"),
        ("retrain", "onnx", "training"), ("inspect", "jinja2", "training"), ("classify", "pyarrow", "parquet"),
    ],
)  # fmt: skip
def test_a_missing_package_is_one_line_with_the_extra(monkeypatch, capsys, command, package, extra) -> None:
    @click.command()
    def needy() -> None:
        raise ModuleNotFoundError(f"No module named '{package}.part'", name=f"{package}.part")

    monkeypatch.setattr(cli.cli, "get_command", lambda *_: needy)
    monkeypatch.setattr(sys, "argv", ["anther", command])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 1
    assert capsys.readouterr().err == (
        f"anther: this command needs the package '{package}.part'; run `pip install 'anther[{extra}]'`\n"
    )


def test_every_package_of_an_extra_has_one() -> None:
    """What `pip install anther` leaves out is known, so that no command ends in a traceback for want of it."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    names = {"pillow": "PIL", "grpcio-health-checking": "grpc_health", "grpcio-reflection": "grpc_reflection",
             "onnxruntime-gpu": "onnxruntime", "pyopenssl": "OpenSSL", "pyjwt": "jwt",
             "opentelemetry-sdk": "opentelemetry",
             "opentelemetry-exporter-otlp-proto-http": "opentelemetry"}  # fmt: skip
    wanted = {re.split(r"[\[><=]", each)[0] for name, brought in extras.items() if name != "dev" for each in brought}
    modules = {names.get(each, each.replace("-", "_")) for each in wanted - {"anther"}}
    assert modules == set(cli._EXTRAS)


def test_serving_without_a_runtime_is_one_line_with_the_extra(tmp_path: Path, publish_bundle) -> None:
    """The package's metadata may be there without the package: an installation that went wrong."""
    publish_bundle(tmp_path)
    done = without(["onnxruntime"], "serve", "--models", str(tmp_path), "--grpc-port", "0", "--ops-port", "0")
    assert done.returncode == 1
    assert done.stderr == "anther: this command needs the package 'onnxruntime'; run `pip install 'anther[cpu]'`\n"


def test_training_without_torch_is_one_line_with_the_extra(tmp_path: Path) -> None:
    for name in ("daisy", "roses"):
        (tmp_path / name).mkdir()
    done = without(TRAINING, "train", "--data", str(tmp_path), "--name", "flowers", "--weights", "none")
    assert done.returncode == 1
    assert "pip install 'anther[training]'" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_another_missing_module_is_no_matter_of_extras() -> None:
    """A mistake of ours must not be told as something to install."""
    code = "import click\nfrom anther import cli\n@click.command()\ndef needy(): import anther_nothing\n"
    done = python(code + "cli.cli.get_command = lambda *_: needy\ncli.main()", "serve")
    assert done.returncode == 1
    assert "ModuleNotFoundError: No module named 'anther_nothing'" in done.stderr


# Errors


def test_an_error_of_ours_is_one_line_and_exit_code_1(tmp_path: Path) -> None:
    done = python("from anther import cli; cli.main()", "serve", "--models", str(tmp_path), "--ops-port", "0")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("anther: no model in")
    assert len(done.stderr.splitlines()) == 1


def test_a_message_of_several_lines_is_told_in_one(monkeypatch, capsys) -> None:
    def fail(**options: object) -> None:
        raise anther.AntherError("first\n  second")

    monkeypatch.setattr(cli, "cli", fail)
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 1
    assert capsys.readouterr().err == "anther: first second\n"


def test_a_module_that_no_extra_brings_is_raised(monkeypatch) -> None:
    def fail(**options: object) -> None:
        raise ModuleNotFoundError("No module named 'nothing'", name="nothing")

    monkeypatch.setattr(cli, "cli", fail)
    with pytest.raises(ModuleNotFoundError):
        cli.main()


# Whose packages are run


@pytest.mark.parametrize("package", program.PACKAGES)
def test_a_package_of_that_name_that_was_imported_before_is_told(tmp_path: Path, package: str) -> None:
    (tmp_path / package).mkdir()
    (tmp_path / package / "__init__.py").touch()
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import {package}; from anther import cli; cli.main()"
    done = python(code, "--version")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"anther: Python takes another package '{package}' ({tmp_path / package}) for")
    assert len(done.stderr.splitlines()) == 1


def test_a_zip_is_told_that_it_cannot_run(tmp_path: Path) -> None:
    packed = tmp_path / "anther.zip"
    with zipfile.ZipFile(packed, "w") as file:
        for module in (ROOT / "anther").rglob("*.py"):
            file.write(module, module.relative_to(ROOT))
    done = python(f"import sys; sys.path.insert(0, {str(packed)!r}); from anther import cli; cli.main()", "--version")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"anther: Anther's package 'bundle' is not in {packed}; run `pip install")
    assert len(done.stderr.splitlines()) == 1


def test_an_import_hook_that_goes_before_the_path_is_told(tmp_path: Path) -> None:
    """As some editable installations have them."""
    (tmp_path / "service.py").touch()
    code = f"""
import importlib.util, sys
class Hook:
    def find_spec(name, path=None, target=None):
        if name == "service":
            return importlib.util.spec_from_file_location(name, {str(tmp_path / "service.py")!r})
sys.meta_path.insert(0, Hook)
from anther import cli; cli.main()
"""
    done = python(code, "--version")
    assert done.returncode == 1
    assert f"'service' ({tmp_path / 'service.py'})" in done.stderr


def test_our_own_packages_may_have_been_imported_before(tmp_path: Path) -> None:
    """Also by a path that leads over a link."""
    (tmp_path / "link").symlink_to(ROOT)
    code = f"import sys; sys.path.insert(0, {str(tmp_path / 'link')!r}); import service\n"
    assert python(code + "from anther import cli; cli.main()", "--version").returncode == 0


# The public face


def test_the_client_and_its_records_are_anthers_own() -> None:
    assert anther.Client is Client
    assert anther.CallFailed is CallFailed
    assert issubclass(anther.CallFailed, anther.AntherError)
    for name in anther.__all__:
        assert getattr(anther, name) is not None


def test_another_name_is_missing_as_always() -> None:
    with pytest.raises(AttributeError, match="module 'anther' has no attribute 'Nothing'"):
        anther.Nothing  # noqa: B018 - the access is the test


# What is imported when


def test_importing_anther_imports_neither_side() -> None:
    assert not {"grpc", "numpy", "PIL", "onnxruntime", "torch", "service", "training"} & loaded("import anther")


def test_the_client_needs_no_runtime() -> None:
    modules = loaded("import anther; anther.Client('localhost:1').close()")
    assert "grpc" in modules
    assert not {"onnxruntime", "PIL", "prometheus_client", "training", *TRAINING} & modules


def test_the_options_of_the_service_import_nothing_heavy() -> None:
    assert not {"grpc", "numpy", "PIL", "onnxruntime", "rich", *TRAINING} & loaded("import service.commands.serve")


def test_classifying_imports_no_server(tmp_path: Path) -> None:
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(b"junk")
    call = f"sys.argv = ['anther', 'classify', '--target', '127.0.0.1:1', {str(photo)!r}]"
    code = f"import contextlib, sys\nfrom anther import cli\n{call}\nwith contextlib.suppress(SystemExit): cli.main()"
    assert not {"onnxruntime", "prometheus_client", "PIL", *TRAINING} & loaded(code)


def test_serving_imports_no_torch(tmp_path: Path, publish_bundle) -> None:
    """A server that has answered, with the packages of training out of reach."""
    publish_bundle(tmp_path)
    code = f"""
import asyncio, sys
from pathlib import Path
from service.app import App, check_runtime
from service.config import Settings
async def serve():
    check_runtime()
    app = App(Settings(models=Path({str(tmp_path)!r}), http_port=None, grpc_port=0, ops_port=0))
    await app.start()
    await app.stop()
asyncio.run(serve())
"""
    modules = loaded(BLOCK.format(names=set(TRAINING)) + code)
    assert {"grpc", "onnxruntime", "service"} <= modules
    assert not {*TRAINING, "training"} & modules
