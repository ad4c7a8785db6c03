"""The command `serve`: what its options mean, and how it fails."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from bundle.preprocessing import Limits
from service import app, logs
from service.commands import serve as cli
from service.commands.serve import workers_for
from service.config import Settings
from service.engines import runtime
from service.system import cores
from service.workers import supervisor_app

OTHER = {  # a value that is not the default → as text
    "watch_s": (0.5, "0.5"),
    "default_model": ("trees", "trees"),
    "device": ("cpu", "cpu"),
    "precision": ("int8", "int8"),
    "host": ("0.0.0.0", "0.0.0.0"),
    "http_port": (None, "none"),
    "http_connections": (9, "9"),
    "cors": ("https://a.example https://b.example", "https://a.example https://b.example"),
    "grpc_port": (9001, "9001"),
    "ops_port": (0, "0"),
    "workers": (2, "2"),
    "lanes": (3, "3"),
    "slow_ms": (0.5, "0.5"),
    "slow_lanes": (3, "3"),
    "decoders": (4, "4"),
    "max_batch": (16, "16"),
    "max_wait_ms": (0.5, "0.5"),
    "gpu_memory_bytes": (10**9, "1000000000"),
    "queue_limit": (7, "7"),
    "queue_bytes": (1000, "1000"),
    "stream_in_flight": (9, "9"),
    "max_image_bytes": (2000, "2000"),
    "max_image_pixels": (3000, "3000"),
    "max_calls": (9, "9"),
    "grpc_connections": (9, "9"),
    "idle_s": (1.5, "1.5"),
    "arrival_bytes": (1000, "1000"),
    "arrival_s": (1.5, "1.5"),
    "grace_s": (1.5, "1.5"),
    "control": (True, "true"),
    "otlp_endpoint": ("http://collector:4318", "http://collector:4318"),
    "trace_share": (0.5, "0.5"),
    "require_signature": ("key.pub", "key.pub"),
    "tls_cert": ("tls.crt", "tls.crt"),
    "tls_key": ("tls.key", "tls.key"),
    "tls_client_ca": ("ca.crt", "ca.crt"),
    "tokens": ("tokens.json", "tokens.json"),
    "jwt_keys": ("jwks.json", "jwks.json"),
    "jwt_issuer": ("https://issuer.example", "https://issuer.example"),
    "jwt_audience": ("anther", "anther"),
    "ops_access": ("tokens", "tokens"),
    "log_format": ("json", "json"),
}
NEEDS = {  # options that go with others alone
    "tls_cert": ("tls_key",),
    "tls_key": ("tls_cert",),
    "tls_client_ca": ("tls_cert", "tls_key"),
    "jwt_keys": ("jwt_issuer", "jwt_audience"),
    "jwt_issuer": ("jwt_keys", "jwt_audience"),
    "jwt_audience": ("jwt_keys", "jwt_issuer"),
    "ops_access": ("tokens",),
}
BAD = [
    ("--watch-s", "-1", "x>=0"),
    ("--http-port", "off", "neither a number nor 'none'"),
    ("--http-connections", "0", "x>=1"),
    ("--cors", "example.org/", "no origin"),
    ("--otlp-endpoint", "localhost:4318", "a URL such as http://localhost:4318"),
    ("--grpc-port", "abc", "integer"),
    ("--grpc-port", "65536", "0<=x<=65535"),
    ("--ops-port", "-1", "0<=x<=65535"),
    ("--device", "tpu", "'auto', 'cpu', 'cuda'"),
    ("--precision", "fp16", "'fp32', 'int8', 'auto'"),
    ("--workers", "0", "1<=x<=256"),
    ("--workers", "many", "integer"),
    ("--lanes", "257", "0<=x<=256"),
    ("--slow-ms", "-1", "x>=0"),
    ("--slow-lanes", "257", "0<=x<=256"),
    ("--decoders", "257", "0<=x<=256"),
    ("--max-batch", "0", "1<=x<=1024"),
    ("--max-wait-ms", "-1", "0<=x<=10000"),
    ("--gpu-memory-bytes", "-1", "x>=0"),
    ("--queue-limit", "0", "x>=1"),
    ("--queue-bytes", "0", "x>=1"),
    ("--stream-in-flight", "-1", "0<=x<=10000"),
    ("--max-image-bytes", "0", "1<=x<=1000000000"),
    ("--max-image-bytes", "3000000000", "1<=x<=1000000000"),
    ("--max-image-pixels", "134217729", "1<=x<=134217728"),
    ("--max-calls", "0", "x>=1"),
    ("--grpc-connections", "0", "x>=1"),
    ("--idle-s", "0", "1<=x<=1000000"),
    ("--arrival-bytes", "0", "x>=1"),
    ("--arrival-s", "0", "1<=x<=1000000"),
    ("--grace-s", "-1", "x>=0"),
    ("--ops-access", "closed", "'open', 'tokens'"),
    ("--log-format", "xml", "'text', 'json'"),
    ("--models", "no/such/folder", "does not exist"),
]


def variable(option: str) -> str:
    return "ANTHER_" + option.removeprefix("--").replace("-", "_").upper()


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """`serve(*args, env=)` gives click's result and the settings that a server would start with."""
    (tmp_path / "models").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ANTHER_WORKERS")
    monkeypatch.delenv("ANTHER_HTTP_PORT")
    monkeypatch.setattr(cores, "usable_cores", lambda: 2)
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


def test_the_command_is_there_without_grpc() -> None:
    """So `--help` is quick."""
    code = "import sys, service.commands.serve; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "click" in loaded
    assert "grpc" not in loaded


def test_every_setting_has_an_option() -> None:
    options = {parameter.name for parameter in cli.serve.params}
    assert options == {field.name for field in dataclasses.fields(Settings)} == {*OTHER, "models"}


@pytest.mark.parametrize("name", OTHER)
def test_a_variable_beats_the_default_and_a_flag_beats_the_variable(serve, name: str) -> None:
    value, text = OTHER[name]
    default = getattr(Settings(), name)
    assert value != default
    option = "--" + name.replace("_", "-")
    others = {variable(other): OTHER[other][1] for other in NEEDS.get(name, ())}
    assert getattr(serve(env={variable(option): text, **others})[1], name) == value
    assert getattr(serve(option, text, env=others)[1], name) == value
    assert getattr(serve(option, str(default), env={variable(option): text})[1], name) == default


@pytest.mark.parametrize(
    ("usable", "int8", "fp32"), [(1, 1, 1), (6, 1, 1), (7, 2, 1), (9, 2, 1), (10, 2, 2), (18, 3, 2), (64, 11, 8)]
)
def test_auto_starts_as_many_workers_as_the_cores_keep_busy_and_one_on_a_gpu(usable: int, int8: int, fp32: int) -> None:
    assert [workers_for(usable, False, precision) for precision in ("int8", "auto", "fp32")] == [int8, int8, fp32]
    assert workers_for(usable, True, "int8") == 1


@pytest.mark.parametrize(
    ("device", "gpu_runtime", "expected"), [("cpu", True, 2), ("auto", False, 2), ("auto", True, 1), ("cuda", True, 1)]
)
def test_by_default_cores_and_device_choose_the_workers(serve, monkeypatch, device, gpu_runtime, expected) -> None:
    monkeypatch.setattr(cores, "usable_cores", lambda: 16)
    monkeypatch.setattr(runtime, "gpu_runtime_installed", lambda: gpu_runtime)
    assert serve("--device", device)[1].workers == expected
    assert serve("--device", device, "--workers", "auto", env={"ANTHER_WORKERS": "5"})[1].workers == expected
    assert serve("--device", device, "--workers", "5")[1].workers == 5


def test_a_faster_precision_needs_more_workers_for_the_same_cores(serve, monkeypatch) -> None:
    monkeypatch.setattr(cores, "usable_cores", lambda: 16)
    monkeypatch.setattr(runtime, "gpu_runtime_installed", lambda: False)
    assert [serve("--precision", precision)[1].workers for precision in ("fp32", "int8", "auto")] == [2, 3, 3]


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


def test_every_option_has_a_help_text_and_shows_its_default() -> None:
    for parameter in cli.serve.params:
        assert isinstance(parameter, click.Option)
        assert parameter.help, parameter.name
        assert parameter.show_default or parameter.is_flag, parameter.name
    assert CliRunner().invoke(cli.serve, ["--help"]).exit_code == 0


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--tls-cert", "c", "--tls-cert and --tls-key belong together"),
        ("--tls-key", "k", "--tls-cert and --tls-key belong together"),
        ("--tls-client-ca", "a", "needs --tls-cert and --tls-key"),
        ("--ops-access", "tokens", "needs --tokens"),
        ("--jwt-keys", "jwks.json", "--jwt-keys, --jwt-issuer and --jwt-audience belong together"),
    ],
)
def test_options_that_go_with_others_alone_say_so(serve, option: str, value: str, said: str) -> None:
    result, settings = serve(option, value)
    assert (result.exit_code, settings) == (2, None)
    assert said in result.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--host", "0.0.0.0"], "0.0.0.0 is open without TLS (--tls-cert) and tokens (--tokens): whoever can reach it"),
        (["--host", "0.0.0.0"], "may read what is sent and use the service"),
        (["--host", "0.0.0.0", "--tokens", "f"], "without TLS (--tls-cert): whoever can reach it may read"),
        (["--host", "192.0.2.1", "--tls-cert", "c", "--tls-key", "k"], "without tokens (--tokens): whoever can reach"),
        (["--host", "0.0.0.0", "--tls-cert", "c", "--tls-key", "k", "--tls-client-ca", "a"], ""),
        (["--host", "127.0.0.3"], ""), (["--host", "localhost"], ""), (["--host", "::1"], ""),
    ],
)  # fmt: skip
def test_an_open_address_is_told_of_in_one_line(serve, caplog, options: list[str], said: str) -> None:
    serve(*options)
    assert [said in record.message for record in caplog.records] == ([True] if said else [])
