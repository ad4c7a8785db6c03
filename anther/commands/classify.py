"""`anther classify`: photos, or all pictures below a folder, over one stream to a running server.

However many photos there are, few are in memory: folders are walked as answers come, and every answer is printed or
written before the next is looked at. Of a photo that an --output already holds, 8 bytes are kept.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from anther.client import target as targets
from anther.commands.secured import secured
from anther.photos import SUFFIXES, digest, walk

if TYPE_CHECKING:
    from anther import ClassifyOptions, Client
    from anther.client.security import TlsOption
    from anther.results.journal import Journal
    from anther.results.screen import Outcomes, Screen, ThresholdOf

_OUTPUTS = (".jsonl", ".csv", ".parquet")

Advance = Callable[[], None]


@dataclass(frozen=True)
class _Asked:
    """The options."""

    target: str
    model: str
    version: int
    label: str | None
    top: int
    timeout_s: float
    as_json: bool
    output: Path | None
    retry_failed: bool
    mix_models: bool
    tls: "TlsOption"
    token: str


def _kind(context: click.Context, parameter: click.Parameter, path: Path | None) -> Path | None:  # noqa: ARG001
    if path is not None and path.suffix not in _OUTPUTS:
        raise click.BadParameter(f"'{path}' should end in one of {', '.join(_OUTPUTS)}")
    return path


def _target(context: click.Context, parameter: click.Parameter, target: str) -> str:  # noqa: ARG001
    try:
        targets.check(target)
    except targets.TargetMalformed as exc:
        raise click.BadParameter(str(exc)) from exc
    return target


@click.command(short_help="Classify photos or folders of them on a running server.")
@click.argument("photos", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="PHOTO|FOLDER...")
@click.option("--target", default="localhost:8001", show_default=True, envvar="ANTHER_TARGET", show_envvar=True,
              callback=_target, help="HOST:PORT of the server's gRPC.")  # fmt: skip
@secured
@click.option("--model", default="", show_default="the server's own choice", help="Model name.")
@click.option("--version", default=0, show_default=True, type=click.IntRange(0, 10**9),
              help="Model version; 0 is the one in service.")  # fmt: skip
@click.option("--label", show_default="the server's own choice", type=click.Choice(["stable", "canary"]),
              help="Which of the versions in service.")  # fmt: skip
@click.option("--top", default=5, show_default=True, type=click.IntRange(1, 10**6),
              help="Predictions per photo.")  # fmt: skip
@click.option("--timeout-s", default=30.0, show_default=True, type=click.FloatRange(0, min_open=True),
              help="Seconds to wait for each answer.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="One JSON object a photo, one a line, as answers come.")
@click.option("--output", show_default="none", type=click.Path(dir_okay=False, path_type=Path), callback=_kind,
              help="Write results to this .jsonl, .csv or .parquet file; resume it where it is there.")  # fmt: skip
@click.option("--retry-failed", is_flag=True, help="Ask again for the photos of --output that failed.")
@click.option("--mix-models", is_flag=True, help="Go on with an --output of another model or version.")
@click.pass_context
def classify(context: click.Context, /, photos: tuple[Path, ...], **options: Any) -> None:
    """Classify photos, or all pictures below a folder, on a running server.

    What is named is read whatever it is; in folders, pictures are known by the ends of their names (.jpg, .png …), and
    pipes and devices are passed over.

    With --output, the same command resumes where an interrupted run stopped. CSV and Parquet have the columns photo,
    model, version, provider, confident, label, index and probability (of the most probable class), predictions,
    error_code, error_reason, error_message; Parquet also has path, the name byte for byte.

    Exit code 1 if any photo failed; all others are answered all the same.
    """
    asked = _Asked(**options)
    if next(walk(photos, in_order=False), None) is None:
        raise click.UsageError(f"no pictures ({', '.join(sorted(SUFFIXES))}) below {', '.join(map(str, photos))}")

    from anther import Client

    with Client(asked.target, asked.timeout_s, tls=asked.tls, token=asked.token) as client:
        failed = _show(client, photos, asked) if asked.output is None else _write(client, photos, asked, asked.output)
    context.exit(1 if failed else 0)


def _show(client: "Client", photos: tuple[Path, ...], asked: _Asked) -> int:
    """How many photos failed."""
    from anther.results.screen import Screen, Tally

    screen, tally = Screen("json" if asked.as_json else "table", _threshold_of(client)), Tally()
    with _bar(screen, photos) as advance, _asking(client, walk(photos), asked) as outcomes:
        screen.show(tally.counted(_passing(outcomes, advance)))
    if not asked.as_json:
        click.echo(tally)
    return tally.failed


def _write(client: "Client", photos: tuple[Path, ...], asked: _Asked, output: Path) -> int:
    """How many photos of the output failed, in this run or before."""
    from anther.results import output as files
    from anther.results.screen import Screen, Tally

    files.check_installed(output)
    found = client.get_model(asked.model, asked.version, label=asked.label or "")
    asked = replace(asked, model=found.name, version=found.version, label=None)  # this one to the end, whatever comes
    screen, tally = Screen("json" if asked.as_json else "nothing"), Tally()
    with files.opened(output, asked.retry_failed) as journal, _hint(journal), _bar(screen, photos) as advance:
        if not asked.mix_models:
            files.check_model(journal, output, found.name, found.version)
        with _asking(client, _left(photos, journal, advance), asked) as outcomes:
            kept = files.recorded(outcomes, journal, output, f"{found.name}/{found.version}")
            screen.show(tally.counted(_passing(kept, advance)))
    failed = journal.failed + tally.failed
    if not asked.as_json:
        click.echo(f"{tally}\n" * bool(tally.photos) + f"{output} holds {len(journal):,} photos" + _failures(failed))
    return failed


def _threshold_of(client: "Client") -> "ThresholdOf":
    from anther import CallFailed

    def ask(model: str, version: int) -> float | None:
        try:
            return client.get_model(model, version).threshold
        except CallFailed:  # it has left service since it answered, or the token is for classifying alone
            return None

    return ask


@contextlib.contextmanager
def _asking(client: "Client", photos: Iterator[Path], asked: _Asked) -> Iterator["Outcomes"]:
    """The stream ends with the block, by Ctrl-C too."""
    options: ClassifyOptions = {
        "model": asked.model, "version": asked.version, "label": asked.label or "", "top_k": asked.top
    }  # fmt: skip
    outcomes = client.classify_as_ready(photos, request_id=lambda photo: digest(photo).hex(), **options)
    with contextlib.closing(outcomes):
        yield outcomes


@contextlib.contextmanager
def _bar(screen: "Screen", photos: tuple[Path, ...]) -> Iterator[Advance]:
    """Moves on by a photo with each call. How many there are is counted meanwhile, if somebody looks at it."""
    with screen.progress() as bar:
        task = bar.add_task("classifying", total=None)
        if not bar.disable:
            threading.Thread(target=lambda: bar.update(task, total=_count(photos)), daemon=True).start()
        yield lambda: bar.advance(task)


def _count(photos: tuple[Path, ...]) -> int:
    return sum(1 for _ in walk(photos, in_order=False))


def _left(photos: tuple[Path, ...], journal: "Journal", advance: Advance) -> Iterator[Path]:
    """Those that the journal does not hold."""
    for photo in walk(photos):
        if photo in journal:
            advance()
        else:
            yield photo


def _passing(outcomes: "Outcomes", advance: Advance) -> "Outcomes":
    for outcome in outcomes:
        advance()
        yield outcome


@contextlib.contextmanager
def _hint(journal: "Journal") -> Iterator[None]:
    from anther.client.call_failed import CallFailed

    try:
        yield
    except (CallFailed, KeyboardInterrupt):
        click.echo(f"the answers so far are in {journal.path}; the same command resumes from there", err=True)
        raise


def _failures(failed: int) -> str:
    return f", {failed:,} of which failed: --retry-failed asks for them again" if failed else ""
