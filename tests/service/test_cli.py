"""The commands `serve` and `classify`: what their options mean, and how they fail."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from bundle.preprocessing import Limits
from service import app, cli, logs, supervisor_app
from service.config import Settings

OTHER = {  # a value that is not the default → as text
    "watch_s": (0.5, "0.5"),
    "default_model": ("trees", "trees"),
    "device": ("cpu", "cpu"),
    "host": ("0.0.0.0", "0.0.0.0"),
    "grpc_port": (9001, "9001"),
    "ops_port": (0, "0"),
    "workers": (2, "2"),
    "lanes": (3, "3"),
    "queue_limit": (7, "7"),
    "queue_bytes": (1000, "1000"),
    "stream_in_flight": (9, "9"),
    "max_image_bytes": (2000, "2000"),
    "max_image_pixels": (3000, "3000"),
    "grace_s": (1.5, "1.5"),
    "control": (True, "true"),
    "log_format": ("json", "json"),
}
BAD = [
    ("--watch-s", "-1", "x>=0"),
    ("--grpc-port", "abc", "integer"),
    ("--grpc-port", "65536", "0<=x<=65535"),
    ("--ops-port", "-1", "0<=x<=65535"),
    ("--device", "tpu", "'auto', 'cpu', 'cuda'"),
    ("--workers", "0", "1<=x<=256"),
    ("--lanes", "257", "0<=x<=256"),
    ("--queue-limit", "0", "x>=1"),
    ("--queue-bytes", "0", "x>=1"),
    ("--stream-in-flight", "-1", "0<=x<=10000"),
    ("--max-image-bytes", "0", "1<=x<=1000000000"),
    ("--max-image-bytes", "3000000000", "1<=x<=1000000000"),
    ("--max-image-pixels", "134217729", "1<=x<=134217728"),
    ("--grace-s", "-1", "x>=0"),
    ("--log-format", "xml", "'text', 'json'"),
    ("--models", "no/such/folder", "does not exist"),
]


def variable(option: str) -> str:
    return "ANTHER_" + option.removeprefix("--").replace("-", "_").upper()


# serve


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """`serve(*args, env=)` gives click's result and the settings that a server would start with."""
    (tmp_path / "models").mkdir()
    monkeypatch.chdir(tmp_path)
    seen: list[Settings] = []
    formats: list[str] = []
    monkeypatch.setattr(app, "run", lambda settings: seen.append(settings) if settings.workers == 1 else None)
    monkeypatch.setattr(supervisor_app, "run", lambda settings: seen.append(settings) if settings.workers > 1 else None)
    monkeypatch.setattr(logs, "configure", formats.append)

    def call(*arguments: str, env: dict[str, str] | None = None) -> tuple[Result, Settings | None]:
        result = CliRunner(env=env).invoke(cli.serve, arguments)
        settings = seen.pop() if seen else None
        assert formats[-1:] == ([settings.log_format] if settings else [])
        return result, settings

    return call


def test_without_options_the_defaults_hold(serve) -> None:
    result, settings = serve()
    assert (result.exit_code, settings) == (0, Settings())


def test_every_setting_has_an_option() -> None:
    options = {parameter.name for parameter in cli.serve.params}
    assert options == {field.name for field in dataclasses.fields(Settings)} == {*OTHER, "models"}


@pytest.mark.parametrize("name", OTHER)
def test_a_variable_beats_the_default_and_a_flag_beats_the_variable(serve, name: str) -> None:
    value, text = OTHER[name]
    default = getattr(Settings(), name)
    assert value != default
    option = "--" + name.replace("_", "-")
    assert getattr(serve(env={variable(option): text})[1], name) == value
    assert getattr(serve(option, text)[1], name) == value
    assert getattr(serve(option, str(default), env={variable(option): text})[1], name) == default


def test_the_folder_of_models_follows_the_same_order(serve, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    assert serve(env={"ANTHER_MODELS": "one"})[1].models == Path("one")
    assert serve("--models", "two", env={"ANTHER_MODELS": "one"})[1].models == Path("two")


def test_an_empty_variable_is_none(serve) -> None:
    """docker compose sets variables that nobody filled in to nothing."""
    assert serve(env={variable("--" + name): "" for name in OTHER})[1] == Settings()


@pytest.mark.parametrize(("option", "value", "expected"), BAD)
@pytest.mark.parametrize("by", ["flag", "variable"])
def test_a_bad_value_names_option_variable_value_and_expectation(serve, option, value, expected, by) -> None:
    arguments, env = ((option, value), {}) if by == "flag" else ((), {variable(option): value})
    result, settings = serve(*arguments, env=env)
    assert (result.exit_code, settings) == (2, None)
    error = " ".join(result.stderr.split())
    for part in (option, variable(option), value, expected):
        assert part in error


def test_the_bounds_of_the_options_are_those_of_the_limits() -> None:
    """A value that the option lets through may not fail later, when lanes are running already."""
    (pixels,) = (parameter.type for parameter in cli.serve.params if parameter.name == "max_image_pixels")
    assert isinstance(pixels, click.IntRange)
    Limits(max_pixels=pixels.max)
    with pytest.raises(ValueError, match="max_pixels"):
        Limits(max_pixels=pixels.max + 1)


@pytest.mark.parametrize("command", [cli.serve, cli.classify])
def test_every_option_has_a_help_text_and_shows_its_default(command: click.Command) -> None:
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.name
            assert parameter.show_default or parameter.is_flag, parameter.name
    assert CliRunner().invoke(command, ["--help"]).exit_code == 0


# classify


@pytest.fixture
def classify(start_edge):
    """`classify(*args)` against a running server."""
    target = f"127.0.0.1:{start_edge().port}"
    return lambda *arguments, **options: CliRunner(**options).invoke(
        cli.classify, ["--target", target, *map(str, arguments)]
    )


@pytest.fixture
def folder(tmp_path: Path, pictures) -> Path:
    """Three pictures among other things."""
    root = tmp_path / "photos"
    for name, label in {"b/red.PNG": "daisy", "a/green.jpeg": "tulips", "c.tif": "roses"}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(pictures[label])
    (root / "notes.txt").write_text("no picture")
    (root / "a" / "album.jpg").mkdir()
    return root


def lines(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_a_folder_is_walked_in_order_for_its_pictures(classify, folder: Path) -> None:
    result = classify(folder, "--json")
    assert result.exit_code == 0
    assert [(line["photo"], line["predictions"][0]["label"]) for line in lines(result)] == [
        (str(folder / "a/green.jpeg"), "tulips"),
        (str(folder / "b/red.PNG"), "daisy"),
        (str(folder / "c.tif"), "roses"),
    ]


def test_a_named_file_is_taken_whatever_its_name(classify, tmp_path: Path, pictures) -> None:
    path = tmp_path / "photo"
    path.write_bytes(pictures["daisy"])
    assert lines(classify(path, "--json"))[0]["predictions"][0]["label"] == "daisy"


def test_one_failure_gives_exit_code_1_and_all_others_are_answered(classify, folder: Path) -> None:
    (folder / "a" / "broken.jpg").write_bytes(b"junk")
    result = classify(folder, folder / "missing.jpg", "--json")
    assert result.exit_code == 1
    assert [line["error"] and line["error"]["reason"] for line in lines(result)] == [
        "IMAGE_FORMAT_REFUSED",
        None,
        None,
        None,
        "FILE_UNREADABLE",
    ]
    table = classify(folder)
    assert table.exit_code == 1
    assert "3 of 4 answered by flowers/1 on CPUExecutionProvider" in table.stdout


def test_names_that_are_no_utf8_are_answered(classify, folder: Path, pictures) -> None:
    name = b"caf\xe9.png".decode(errors="surrogateescape")
    (folder / name).write_bytes(pictures["daisy"])
    result = classify(folder, "--json")
    assert result.exit_code == 0
    assert str(folder / name) in [line["photo"] for line in lines(result)]
    assert classify(folder).exit_code == 0


def test_top_model_and_version_are_passed_on(classify, folder: Path) -> None:
    (line,) = lines(classify(folder / "c.tif", "--json", "--top", "2", "--model", "flowers", "--version", "1"))
    assert (line["model"], line["version"], len(line["predictions"])) == ("flowers", 1, 2)
    (line,) = lines(classify(folder / "c.tif", "--json", "--version", "3"))
    assert line["error"]["reason"] == "VERSION_NOT_FOUND"


def test_a_folder_without_pictures_is_wrong_usage(classify, tmp_path: Path) -> None:
    result = classify(tmp_path)
    assert result.exit_code == 2
    assert "no pictures (.bmp, .gif," in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [[], ["--top", "0", "x"], ["--version", "-1", "x"], ["--version", str(2**63), "x"], ["--top", str(2**31), "x"],
     ["--timeout-s", "0", "x"], ["--nope", "x"]],
)  # fmt: skip
def test_wrong_usage_is_exit_code_2(arguments: list[str]) -> None:
    result = CliRunner().invoke(cli.classify, arguments)
    assert result.exit_code == 2
    assert "Usage:" in result.stderr


def test_the_target_may_come_from_the_environment(start_edge, folder: Path) -> None:
    edge = start_edge()
    result = CliRunner(env={"ANTHER_TARGET": f"127.0.0.1:{edge.port}"}).invoke(cli.classify, [str(folder)])
    assert result.exit_code == 0
