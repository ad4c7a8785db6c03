"""`anther serve`: a server's settings as options."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import click

from service.config import MODELS_DEFAULT, Device, LogFormat, PrecisionChoice, Settings, default_models

_DEFAULT = Settings()


def _option(flag: str, text: str, kind: Any = None) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """An option whose default and environment variable follow from the setting of the same name."""
    name = flag.removeprefix("--").replace("-", "_")
    return click.option(
        flag, default=getattr(_DEFAULT, name), type=kind, show_default=True, envvar=f"ANTHER_{name.upper()}",
        show_envvar=True, help=text,
    )  # fmt: skip


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
@_option("--grpc-port", "gRPC; 0 picks a free port and prints it.", _PORT)
@_option("--ops-port", "Metrics, /livez and /readyz; 0 picks a free port.", _PORT)
@_option("--workers", "Processes that share the gRPC port.", click.IntRange(1, 256))
@_option("--lanes", "Pictures worked on at once; 0 is one per usable core.", click.IntRange(0, 256))
@_option("--decoders", "Threads that prepare pictures for a GPU; 0 is one per usable core.", click.IntRange(0, 256))
@_option("--max-batch", "Most pictures that a GPU runs at once.", click.IntRange(1, 1024))
@_option("--max-wait-ms", "Longest wait for company on the way to a GPU.", click.FloatRange(0, 10**4))
@_option("--gpu-memory-bytes", "Most that each model may take on the GPU; 0 is no limit.", click.IntRange(0))
@_option("--queue-limit", "Requests that may wait before new ones are refused.", _COUNT)
@_option("--queue-bytes", "Bytes of pictures that may wait.", _COUNT)
@_option("--stream-in-flight", "Pictures of one stream held at once; 0 fits the device.", click.IntRange(0, 10**4))
@_option("--max-image-bytes", "Largest file accepted, in bytes.", _BYTES)
@_option("--max-image-pixels", "Largest picture accepted, in pixels.", _PIXELS)
@_option("--grace-s", "Seconds that accepted requests have to finish after SIGTERM.", click.FloatRange(0))
@click.option("--control", is_flag=False, flag_value=True, default=_DEFAULT.control, type=bool, show_default=True,
              envvar="ANTHER_CONTROL", show_envvar=True,
              help="Let clients of the gRPC port load and unload models.")  # fmt: skip
@_option("--log-format", "Lines on standard error for people or for machines.", click.Choice(get_args(LogFormat)))
def serve(**options: Any) -> None:
    """Serve the models of a folder over gRPC until SIGTERM or Ctrl-C. SIGHUP makes it rescan the folder at once."""
    from service import logs
    from service.system import hangup

    hangup.ignore()
    settings = Settings(**options)
    logs.configure(settings.log_format)
    if settings.workers == 1:
        from service import app

        app.run(settings)
    else:
        from service.workers import supervisor_app

        supervisor_app.run(settings)
