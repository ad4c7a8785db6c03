"""The commands that need a server: `serve` starts one, `classify` asks one."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import click

from service.config import Device, LogFormat, Settings

_IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
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
@_option("--models", "Folder of models/<name>/<version>/.", click.Path(file_okay=False, exists=True, path_type=Path))
@_option("--watch-s", "Seconds between looks at that folder for new versions; 0 never looks.", click.FloatRange(0))
@_option("--default-model", "Answers requests that name no model, where several serve.")
@_option("--device", "'cuda' refuses to start without a GPU.", click.Choice(get_args(Device)))
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
    """Serve the models of a folder over gRPC until SIGTERM or Ctrl-C."""
    from service import logs

    settings = Settings(**options)
    logs.configure(settings.log_format)
    if settings.workers == 1:
        from service import app

        app.run(settings)
    else:
        from service import supervisor_app

        supervisor_app.run(settings)


@click.command()
@click.argument("photos", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="PHOTO|FOLDER...")
@click.option("--target", default="localhost:8001", show_default=True, envvar="ANTHER_TARGET", show_envvar=True,
              help="HOST:PORT of the server.")  # fmt: skip
@click.option("--model", default="", show_default="the server's own choice", help="Model name.")
@click.option("--version", default=0, show_default=True, type=click.IntRange(0, 10**9),
              help="Model version; 0 is the one in service.")  # fmt: skip
@click.option("--top", default=5, show_default=True, type=click.IntRange(1, 10**6),
              help="Predictions per photo.")  # fmt: skip
@click.option("--timeout-s", default=30.0, show_default=True, type=click.FloatRange(0, min_open=True),
              help="Seconds to wait for each answer.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="One JSON object a photo, one a line.")
@click.pass_context
def classify(
    context: click.Context,
    photos: tuple[Path, ...],
    target: str,
    model: str,
    version: int,
    top: int,
    timeout_s: float,
    as_json: bool,
) -> None:
    """Classify photos, or all pictures below a folder, on a running server.

    Exit code 1 if any photo failed; all others are answered all the same.
    """
    from service.client import Client
    from service.results import write_json, write_table

    files = list(_files(photos))
    if not files:
        raise click.UsageError(
            f"no pictures ({', '.join(sorted(_IMAGE_SUFFIXES))}) below {', '.join(map(str, photos))}"
        )
    with Client(target, timeout_s) as client:
        outcomes = zip(files, client.classify_many(files, model, version, top), strict=True)
        failed = write_json(outcomes) if as_json else write_table(outcomes, len(files))
    context.exit(1 if failed else 0)


def _files(photos: tuple[Path, ...]) -> Iterator[Path]:
    for photo in photos:
        if photo.is_dir():
            yield from sorted(path for path in photo.rglob("*") if _is_picture(path))
        else:
            yield photo


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in _IMAGE_SUFFIXES and not path.is_dir()
