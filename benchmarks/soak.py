"""Mixed traffic for a long time: `python -m benchmarks.soak [--seconds 600]`.

Right, hasty, wrong and vanishing clients all at once, while new versions are published and old ones deleted. Answers
must stay right, codes must be the expected ones, and the server's memory, file descriptors and threads must stay flat.
`--only cancel,classify` is eight callers of whom random ones give up. Prints one JSON line; exit code 1 with the
reasons where something is not as it must be.
"""

import json
import random
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import click

from benchmarks.flatness import Flatness, flatness
from benchmarks.soak_material import gather
from benchmarks.soak_models import Publisher
from benchmarks.soak_traffic import KINDS, Caller, Kind
from benchmarks.subject import Server, photo_option, serving
from benchmarks.tally import Outcome, Tally, quantile
from benchmarks.vitals import Vitals, read_vitals
from bundle.repository import Repository

_SAMPLES = 600  # over the whole run, but no more than one a second
_WATCH_S = 1.0
_MEMORY_MB, _MEMORY_SHARE = 20.0, 0.1  # growth that is no leak: large pictures and reloads make memory go up and down
_DESCRIPTORS, _THREADS = 5.0, 2.0
_MAX_CALL_S = 180.0  # after the end, for the callers to come home


@click.command()
@click.option("--models", default=Path("models"), type=click.Path(path_type=Path), show_default=True)
@click.option("--model", default="flowers", show_default=True)
@photo_option
@click.option("--seconds", default=600.0, show_default=True, type=click.FloatRange(12),
              help="Under 300 memory may still be warming up.")  # fmt: skip
@click.option("--callers", default=8, show_default=True, type=click.IntRange(1, 64), help="Closed-loop callers.")
@click.option("--publish-every", default=20.0, show_default=True, help="Seconds between new versions.")
@click.option("--only", default="", show_default="all", help=f"Kinds, of: {', '.join(kind.name for kind in KINDS)}.")
def main(models: Path, model: str, photo: Path, seconds: float, callers: int, publish_every: float, only: str) -> None:
    """Counts by kind and code, wrong answers, latencies, and whether the server's memory stayed flat."""
    kinds = chosen(only)
    source = Repository(models).open(model).path
    with tempfile.TemporaryDirectory() as folder:
        publisher = Publisher(Path(folder), source, model, publish_every)
        options = ("--watch-s", str(_WATCH_S))
        with serving(Path(folder), photo, _free_port(), options) as server, publisher:
            tally = Tally()
            samples = _drive(server, photo.read_bytes(), kinds, tally, seconds, callers)
            served = _version(server)
    result, reasons = verdict(tally, samples, kinds, served, publish_every < seconds / 2)
    print(json.dumps({"seconds": seconds, "callers": callers, **result}))
    if reasons:
        sys.exit("; ".join(reasons))


def chosen(only: str) -> tuple[Kind, ...]:
    """Raises `UsageError` for a kind that does not exist."""
    names = [name.strip() for name in only.split(",") if name.strip()]
    unknown = set(names) - {kind.name for kind in KINDS}
    if unknown:
        raise click.UsageError(f"no kind of traffic is called {', '.join(sorted(unknown))}")
    return tuple(kind for kind in KINDS if kind.name in names or not names)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        port: int = found.getsockname()[1]
    return port


def _version(server: Server) -> int:
    """Which one answers."""
    from anther import Client

    with Client(server.target) as client:
        return client.list_models()[0].version


def _drive(
    server: Server, photo: bytes, kinds: Sequence[Kind], tally: Tally, seconds: float, callers: int
) -> list[Vitals]:
    """Runs the callers and samples the server until the time is over."""
    material, stop = gather(server.target, photo), threading.Event()
    clients = [
        Caller(server.target, f"{server.ops}/metrics", material, random.Random(number)) for number in range(callers)
    ]
    threads = [threading.Thread(target=_call, args=(caller, kinds, tally, stop), daemon=True) for caller in clients]
    for thread in threads:
        thread.start()
    samples = _sample(server, seconds)
    stop.set()
    for thread in threads:
        thread.join(_MAX_CALL_S)
        if thread.is_alive():
            sys.exit(f"a call has not ended {_MAX_CALL_S:.0f} s after the last one began")
    for caller in clients:
        caller.channel.close()
    return samples


def _call(caller: Caller, kinds: Sequence[Kind], tally: Tally, stop: threading.Event) -> None:
    shares = [kind.share for kind in kinds]
    while not stop.is_set():
        (kind,) = caller.chance.choices(kinds, shares)
        started = time.perf_counter()
        try:
            outcomes = kind.call(caller)
        except Exception as error:  # a caller must not fall silent
            outcomes = [Outcome(type(error).__name__, str(error))]
        tally.add(kind.name, kind.codes, outcomes, time.perf_counter() - started)


def _sample(server: Server, seconds: float) -> list[Vitals]:
    ends, pause, samples = time.monotonic() + seconds, max(1.0, seconds / _SAMPLES), []
    with click.progressbar(length=int(seconds), label="soaking", file=sys.stderr) as bar:
        while (left := ends - time.monotonic()) > 0:
            time.sleep(min(pause, left))
            if (code := server.process.poll()) is not None:
                sys.exit(f"the server has ended with code {code}")
            samples.append(read_vitals(server.process.pid))
            bar.update(int(pause))
    return samples


def verdict(
    tally: Tally, samples: Sequence[Vitals], kinds: Sequence[Kind], served: int, reloads: bool
) -> tuple[dict[str, object], list[str]]:
    """What was measured, and the reasons why it is not good."""
    held = {
        "memory_mb": flatness([sample.memory / 1e6 for sample in samples], _MEMORY_MB, _MEMORY_SHARE),
        "descriptors": flatness([float(sample.descriptors) for sample in samples], _DESCRIPTORS),
        "threads": flatness([float(sample.threads) for sample in samples], _THREADS),
    }
    idle = [kind.name for kind in kinds if not tally.counts[kind.name]]
    reasons = [
        *(f"{name} grew from {found.early:.0f} to {found.late:.0f}" for name, found in held.items() if not found.flat),
        *(f"{count} wrong answers ({kind})" for kind, count in tally.wrong.items()),
        *(f"{count} unexpected ends ({end})" for end, count in tally.unexpected.items()),
        *(f"no call of the kind '{name}' was made" for name in idle),
        *(["no new version came into service"] if reloads and served < 2 else []),
    ]
    return {**_calls(tally), **_held(held, samples), "version": served, "examples": tally.examples}, reasons


def _calls(tally: Tally) -> dict[str, object]:
    return {
        "calls": {kind: dict(codes) for kind, codes in tally.counts.items()},
        "wrong": tally.wrong.total(),
        "unexpected": tally.unexpected.total(),
        "classify_p50_ms": round(quantile(tally.seconds["classify"], 0.5) * 1000, 1),
        "classify_p99_ms": round(quantile(tally.seconds["classify"], 0.99) * 1000, 1),
    }


def _held(held: dict[str, Flatness], samples: Sequence[Vitals]) -> dict[str, object]:
    return {
        **{
            name: {
                "early": round(found.early, 1),
                "late": round(found.late, 1),
                "most": round(found.most, 1),
                "flat": found.flat,
            }
            for name, found in held.items()
        },
        "cpu_s": round(samples[-1].cpu_s - samples[0].cpu_s, 1),
    }


if __name__ == "__main__":
    main()
