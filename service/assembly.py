"""Puts together what belongs to a device: the function that opens its engines, and its scheduler; and who may call."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from bundle.preprocessing import Limits
from bundle.repository import Bundle
from service.config import Settings
from service.engines.cuda import CudaOptions, batch_sizes_up_to, open_on_cuda
from service.engines.engine import Engine, OpenEngine, open_on_cpu
from service.engines.runtime import Usable
from service.errors import TracingMissing
from service.identity.access import Access
from service.identity.follower import Follower, followed_access
from service.metrics import Metrics
from service.scheduling.batcher import Batcher, OnBatch
from service.scheduling.decoder import DecodeProcess, OnEnd, uncounted
from service.scheduling.fair_queue import Bounds
from service.scheduling.lanes import Lanes
from service.scheduling.scheduler import Scheduler
from service.scheduling.slow_lanes import SlowLanesOptions
from service.system.cores import usable_cores

if TYPE_CHECKING:
    from service.identity.certificates import Certificates
    from service.tracing import Tracing


def opener(settings: Settings, device: Usable) -> OpenEngine:
    """Where signatures are required, it asks for one before it reads the model. Raises `TrustUnusable`."""
    open_engine = _opener(settings, device)
    if not settings.require_signature:
        return open_engine
    from service.signatures.signed import require_signed  # `cryptography` is for those who ask for it
    from service.signatures.trust import Trust

    trust = Trust.read(Path(settings.require_signature))

    def open_signed(bundle: Bundle) -> Engine:
        require_signed(bundle, trust)
        return open_engine(bundle)

    return open_signed


def _opener(settings: Settings, device: Usable) -> OpenEngine:
    if device == "cpu":
        return partial(open_on_cpu, precision=settings.precision)
    options = CudaOptions(batch_sizes_up_to(settings.max_batch), settings.gpu_memory_bytes)
    return partial(open_on_cuda, options=options, precision=settings.precision)


def tracing(endpoint: str, share: float) -> "Tracing":
    """Where the settings name a collector. Raises `TracingMissing`."""
    try:
        from service.tracing import to_collector
    except ModuleNotFoundError as exc:
        raise TracingMissing(exc.name or str(exc)) from exc
    return to_collector(endpoint, share)


def scheduler(
    settings: Settings, device: Usable, on_batch: OnBatch | None = None, on_end: OnEnd = uncounted
) -> Scheduler:
    """The scheduler, its threads running.

    For a GPU it decodes two batches ahead, and calls `on_batch` for each. It calls `on_end` for each process that
    decoded slow images.
    """
    bounds = Bounds(settings.queue_limit, settings.queue_bytes)
    slow = _slow_lanes(settings, bounds, on_end)
    if device == "cpu":
        return Lanes(settings.lanes or usable_cores(), bounds, slow)
    return Batcher(
        settings.decoders or usable_cores(),
        bounds,
        settings.max_wait_ms / 1000,
        ready_rows=2 * settings.max_batch,
        on_batch=on_batch,
        slow=slow,
    )


@dataclass(frozen=True)
class Identity:
    """Who may call, what the server shows that it is, and the thread that follows both kinds of files."""

    access: Access
    certificates: "Certificates | None"
    follower: Follower


def identity(settings: Settings, metrics: Metrics) -> Identity:
    """Raises `TokensInvalid`, `KeysInvalid` and `CertificatesInvalid`."""
    access, sources = followed_access(settings, settings.workers)
    certificates = _certificates(settings, metrics)

    def checked(files: str, in_use: bool) -> None:
        metrics.followed(files, in_use)
        if not access.open:
            metrics.callers(access.names)

    if certificates is not None:
        sources.append(certificates)
    return Identity(access, certificates, Follower(sources, checked))


def _certificates(settings: Settings, metrics: Metrics) -> "Certificates | None":
    if not settings.tls_cert:
        return None
    from service.identity.certificates import CertificateFiles, Certificates, Pair  # `cryptography` takes a moment

    def changed(pair: Pair) -> None:
        for name, expires in pair.expires.items():
            metrics.expires(name, expires.timestamp())

    client_ca = Path(settings.tls_client_ca) if settings.tls_client_ca else None
    return Certificates(CertificateFiles(Path(settings.tls_cert), Path(settings.tls_key), client_ca), changed)


def _slow_lanes(settings: Settings, bounds: Bounds, on_end: OnEnd) -> SlowLanesOptions | None:
    """Their queue is as long as the other: whoever fits into that with a request of many images fits into this too."""
    if settings.slow_ms == 0:
        return None
    limits = Limits(settings.max_image_bytes, settings.max_image_pixels)
    count = settings.slow_lanes or usable_cores()
    return SlowLanesOptions(settings.slow_ms / 1000, count, bounds, partial(DecodeProcess, limits, on_end))
