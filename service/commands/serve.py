"""`anther serve`: a server's settings as options."""

import importlib
import logging
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import click

from service.config import MODELS_DEFAULT, Device, LogFormat, OpsAccess, PrecisionChoice, Settings, default_models

_DEFAULT = Settings()
# One process ends near 1,300 calls a second: a call takes 0.54 ms of its event loop and holds the interpreter's lock
# for 0.75 ms (Zen 5). Six cores reach that with int8, nine with fp32; 'auto' may choose int8.
_CORES_PER_WORKER: dict[PrecisionChoice, int] = {"int8": 6, "auto": 6, "fp32": 9}


class _Workers(click.ParamType[Any]):
    """A number of processes, or the word `auto`."""

    name = "workers"
    _number = click.IntRange(1, 256)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return value if value == "auto" else self._number.convert(value, param, ctx)


class _Port(click.ParamType[Any]):
    """A port, or the word `none`."""

    name = "port"
    _number = click.IntRange(0, 65535)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "none":
            return None
        if isinstance(value, str) and not re.fullmatch(r"-?\d+", value):
            self.fail(f"{value!r} is neither a number nor 'none'", param, ctx)
        return self._number.convert(value, param, ctx)


class _Url(click.ParamType[Any]):
    """A URL of HTTP, or nothing."""

    name = "url"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value and not re.fullmatch(r"https?://[^/\s]+\S*", value):
            self.fail(f"{value!r}; expected a URL such as http://localhost:4318", param, ctx)
        return value


class _Origins(click.ParamType[Any]):
    """Origins (RFC 6454) separated by blanks, or `*`."""

    name = "origins"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        for origin in value.split():
            if not re.fullmatch(r"\*|https?://[^/\s]+", origin):
                self.fail(f"{origin!r} is no origin like https://example.org, nor '*'", param, ctx)
        return value


def _option(flag: str, text: str, kind: Any = None) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """An option whose default and environment variable follow from the setting of the same name."""
    name = flag.removeprefix("--").replace("-", "_")
    return click.option(
        flag, default=getattr(_DEFAULT, name), type=kind, show_default=True, envvar=f"ANTHER_{name.upper()}",
        show_envvar=True, help=text,
    )  # fmt: skip


_FILE = click.Path(dir_okay=False)
_PORT = click.IntRange(0, 65535)
_COUNT = click.IntRange(1)
_BYTES = click.IntRange(1, 10**9)  # gRPC counts a message's bytes in 31 bits
_PIXELS = click.IntRange(1, 2**27)  # the most that `bundle.preprocessing.Limits` takes


@click.command()
@click.option("--models", default=default_models, show_default=MODELS_DEFAULT, envvar="ANTHER_MODELS",
              show_envvar=True, type=click.Path(file_okay=False, exists=True, path_type=Path),
              help="Folder of models/<name>/<version>/.")  # fmt: skip
@_option("--watch-s", "Seconds between rescans of that folder; 0 waits for SIGHUP.", click.FloatRange(0))
@_option("--default-model", "Answers requests that name no model, where several serve.")
@_option("--device", "'cuda' refuses to start without a GPU.", click.Choice(get_args(Device)))
@_option(
    "--precision", "'int8' is faster on a CPU; 'auto' takes it where the bundle allows its loss.",
    click.Choice(get_args(PrecisionChoice)),
)  # fmt: skip
@_option("--host", "Address to listen on; 0.0.0.0 opens the service to the network.")
@_option("--http-port", "HTTP; 0 picks a free port and prints it, 'none' switches HTTP off.", _Port())
@_option("--http-connections", "Most HTTP connections; a new one takes the place of one that waits.", _COUNT)
@_option("--cors", "Origins whose pages may ask over HTTP, separated by blanks; '*' is every page.", _Origins())
@_option("--grpc-port", "gRPC; 0 picks a free port and prints it.", _PORT)
@_option("--ops-port", "Metrics, /livez and /readyz; 0 picks a free port.", _PORT)
@click.option("--workers", default="auto", show_default=True, envvar="ANTHER_WORKERS", show_envvar=True,
              type=_Workers(), metavar="auto|N",
              help=f"Processes that share the ports; 'auto' is one for each {_CORES_PER_WORKER['fp32']} usable "
                   f"cores or part of them ({_CORES_PER_WORKER['int8']} with --precision int8 or auto), and one where "
                   "a GPU may be used. Connections are spread over them, so clients need several.")  # fmt: skip
@_option("--lanes", "Images worked on at once; 0 is one per usable core.", click.IntRange(0, 256))
@_option(
    "--slow-ms",
    "An image that is estimated to take longer is decoded in a process of its own, which is killed where nobody waits "
    "for it; 0 decodes all in the lanes.", click.FloatRange(0),
)  # fmt: skip
@_option("--slow-lanes", "Such processes at once; 0 is one per usable core.", click.IntRange(0, 256))
@_option("--decoders", "Threads that prepare images for a GPU; 0 is one per usable core.", click.IntRange(0, 256))
@_option("--max-batch", "Most images that a GPU runs at once.", click.IntRange(1, 1024))
@_option("--max-wait-ms", "Longest wait of an image for others in its batch on a GPU.", click.FloatRange(0, 10**4))
@_option("--gpu-memory-bytes", "Most that each model may take on the GPU; 0 is no limit.", click.IntRange(0))
@_option("--queue-limit", "Requests that may wait before new ones are refused.", _COUNT)
@_option("--queue-bytes", "Bytes of images that may wait.", _COUNT)
@_option("--stream-in-flight", "Images of one stream held at once; 0 fits the device.", click.IntRange(0, 10**4))
@_option("--max-image-bytes", "Largest file accepted, in bytes.", _BYTES)
@_option("--max-image-pixels", "Largest image accepted, in pixels.", _PIXELS)
@_option("--max-calls", "gRPC calls in progress at once; one caller may have three quarters of them.", _COUNT)
@_option("--grpc-connections", "Connections to the gRPC port.", _COUNT)
@_option("--idle-s", "Seconds after which a connection without a call is closed.", click.FloatRange(1, 10**6))
@_option("--arrival-bytes", "Bytes of messages that may be on their way in.", _COUNT)
@_option(
    "--arrival-s", "Seconds that a message may take to arrive, and a stream may be silent.", click.FloatRange(1, 10**6)
)
@_option("--grace-s", "Seconds that accepted requests have to finish after SIGTERM.", click.FloatRange(0))
@click.option("--control", is_flag=False, flag_value=True, default=_DEFAULT.control, type=bool, show_default=True,
              envvar="ANTHER_CONTROL", show_envvar=True,
              help="Let clients load and unload models.")  # fmt: skip
@_option(
    "--otlp-endpoint", "URL of an OpenTelemetry collector, as http://localhost:4318; empty sends no traces.", _Url()
)
@_option("--trace-share", "Share of the requests that are traced, unless their callers decide.", click.FloatRange(0, 1))
@_option("--require-signature", "Public keys or certificates (PEM); serve only versions that one of them has signed.")
@_option("--tls-cert", "Certificate and its chain (PEM) for gRPC and HTTP; taken anew when it changes.", _FILE)
@_option("--tls-key", "Key of that certificate (PEM), without a passphrase.", _FILE)
@_option("--tls-client-ca", "Authorities (PEM); each client then needs a certificate of one of them.", _FILE)
@_option("--tokens", "File of tokens, made by `anther token new`; callers then need one.", _FILE)
@_option("--jwt-keys", "Public keys (JWKS) of an issuer, whose tokens (JWT) are then believed, too.", _FILE)
@_option("--jwt-issuer", "Claim 'iss' of its tokens.")
@_option("--jwt-audience", "What their claim 'aud' must name.")
@_option("--ops-access", "'tokens' asks for one at /metrics, too.", click.Choice(get_args(OpsAccess)))
@_option("--log-format", "Lines on standard error for people or for machines.", click.Choice(get_args(LogFormat)))
def serve(workers: Any, **options: Any) -> None:
    """Serve the models of a folder over gRPC and HTTP.

    It ends on SIGTERM or Ctrl-C, and rescans the folder at once on SIGHUP.
    """
    from service import logs
    from service.system import address, hangup

    hangup.ignore()
    _check_identity(options)
    if workers == "auto":
        workers = _chosen(options["device"], options["precision"])
    settings = Settings(workers=workers, **options)
    logs.configure(settings.log_format)
    if exposure := address.exposure(settings.host, tls=bool(settings.tls_cert), known=_asks_who(settings)):
        logging.getLogger(__name__).warning(exposure)
    if settings.workers == 1:
        from service import app

        app.run(settings)
    else:
        from service.workers import supervisor_app

        supervisor_app.run(settings)


def _asks_who(settings: Settings) -> bool:
    return bool(settings.tokens or settings.jwt_keys or settings.tls_client_ca)


def _check_identity(options: dict[str, Any]) -> None:
    if bool(options["tls_cert"]) != bool(options["tls_key"]):
        raise click.UsageError("--tls-cert and --tls-key belong together; give both")
    if options["tls_client_ca"] and not options["tls_cert"]:
        raise click.UsageError("--tls-client-ca needs --tls-cert and --tls-key")
    of_issuer = [bool(options[name]) for name in ("jwt_keys", "jwt_issuer", "jwt_audience")]
    if any(of_issuer):
        if not all(of_issuer):
            raise click.UsageError("--jwt-keys, --jwt-issuer and --jwt-audience belong together; give all")
        importlib.import_module("jwt")  # so that the extra is missed here, and not in each worker
    if options["ops_access"] == "tokens" and not (options["tokens"] or any(of_issuer)):
        raise click.UsageError("--ops-access tokens needs --tokens or --jwt-keys")


def _chosen(device: Device, precision: PrecisionChoice) -> int:
    from service.engines.runtime import gpu_runtime_installed
    from service.system.cores import usable_cores

    gpu = device == "cuda" or (device == "auto" and gpu_runtime_installed())
    return workers_for(usable_cores(), gpu, precision)


def workers_for(cores: int, gpu: bool, precision: PrecisionChoice) -> int:
    """One for each `_CORES_PER_WORKER` cores or part of them; one on a GPU, where each would hold the model again."""
    return 1 if gpu else math.ceil(cores / _CORES_PER_WORKER[precision])
