"""The service's settings: one frozen object, built once by the command line and passed down."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from anther.program import EMBEDDED_MODELS
from bundle.precision import VariantPrecision

Device = Literal["auto", "cpu", "cuda"]
PrecisionChoice = Literal["fp32", VariantPrecision, "auto"]
LogFormat = Literal["text", "json"]
OpsAccess = Literal["open", "tokens"]


MODELS_DEFAULT = "./models where it exists, else the embedded model"


def default_models() -> Path:
    """`./models` where there is anything of that name, be it empty; else what the distribution brings."""
    own = Path("models")
    return EMBEDDED_MODELS if EMBEDDED_MODELS.is_dir() and not os.path.lexists(own) else own


def hidden_models(root: Path) -> Path | None:
    """The embedded model's folder, where `root` is the `./models` that goes before it."""
    embedded = EMBEDDED_MODELS
    hidden = root == default_models() and embedded.is_dir() and root.resolve() != embedded.resolve()
    return embedded if hidden else None


@dataclass(frozen=True)
class Settings:
    """Flags beat `ANTHER_*` environment variables, which beat these defaults."""

    models: Path = field(default_factory=default_models)  # the folder of <name>/<version>/; see MODELS_DEFAULT
    watch_s: float = 2.0  # how often that folder is rescanned for new versions; 0 leaves it to SIGHUP and load calls
    default_model: str = ""  # answers requests that name none; needed only where several models serve
    device: Device = "auto"  # 'cuda' refuses to start without a GPU; 'auto' takes one where there is one
    # 'fp32' is the model as it was trained (fp16, or TF32 on a GPU, where it was exported so); 'int8' is faster on a
    # CPU and a little less accurate, and refuses bundles without it; 'auto' takes the fastest whose loss is allowed.
    precision: PrecisionChoice = "fp32"
    host: str = "127.0.0.1"  # the address to listen on; 0.0.0.0 opens the service to the network
    http_port: int | None = 8000  # 0 picks a free one, None switches HTTP off
    http_connections: int = 1024  # a new one beyond it takes the place of one that waits, so callers are not kept out
    cors: str = ""  # origins whose pages may ask over HTTP, separated by blanks; '*' is every page
    grpc_port: int = 8001  # 0 picks a free one
    ops_port: int = 8002  # metrics, liveness, readiness; 0 picks a free one
    workers: int = 1  # processes that share the port, the lanes and the queue; each takes the memory of the models
    lanes: int = 0  # images worked on at once; 0 is one per usable core, more only adds waiting
    slow_ms: float = 50.0  # images that take longer to decode go to processes of their own; 0 decodes all in the lanes
    slow_lanes: int = 0  # such processes, each up to 1.2 GB while it works; 0 is one per usable core
    decoders: int = 0  # threads that prepare images for a GPU; 0 is one per usable core, more only take turns
    max_batch: int = 64  # rows that a GPU runs at once; more answers more under load and takes more of its memory
    max_wait_ms: float = 2.0  # longest wait for others to share a batch; more fills batches, less answers sooner
    gpu_memory_bytes: int = 0  # a model's share of the GPU, 0 is no limit; with too little it does not load
    queue_limit: int = 128  # requests that may wait; more hides overload longer, fewer refuses bursts sooner
    queue_bytes: int = 256 * 2**20  # memory that waiting images may hold, in bytes
    stream_in_flight: int = 0  # images of one stream held at once; 0 is a few more than the device works on
    max_image_bytes: int = 20 * 10**6  # larger files are refused unread
    max_image_pixels: int = 50 * 10**6  # larger images are refused undecoded; reading costs up to 21 bytes a pixel
    max_calls: int = 1024  # gRPC calls in progress, of one caller three quarters of it; each holds up to 128 KB unread
    grpc_connections: int = 1000  # to the gRPC port; fewer where the process may not have so many file descriptors
    idle_s: float = 300.0  # how long a connection may be without a call
    arrival_bytes: int = 512 * 2**20  # room for messages on their way in; each takes that of the largest allowed
    arrival_s: float = 60.0  # how long a message may take to arrive, and a stream may be silent
    grace_s: float = 20.0  # how long accepted requests may take to finish after SIGTERM
    control: bool = False  # whether clients of the gRPC port may load and unload models
    otlp_endpoint: str = ""  # the URL of an OpenTelemetry collector (OTLP over HTTP); empty sends no traces
    trace_share: float = 1.0  # of the requests that are traced where the caller has not decided; each costs CPU
    # A PEM file of public keys or certificates; where it is named, only versions that they have signed are loaded.
    require_signature: str = ""
    tls_cert: str = (
        ""  # PEM files, followed when they change: the certificate with its chain, for both ports of callers
    )
    tls_key: str = ""  # its key (PEM), without a passphrase
    tls_client_ca: str = ""  # authorities (PEM) of which each client then needs a certificate
    tokens: str = ""  # the file of `anther token`; without one everybody who reaches the ports may use them
    jwt_keys: str = ""  # a JSON Web Key Set with an issuer's public keys; its tokens are then believed, too
    jwt_issuer: str = ""  # the claim 'iss' of its tokens
    jwt_audience: str = ""  # one of the claim 'aud'
    ops_access: OpsAccess = "open"  # whether /metrics, too, needs a token, of the scope 'metrics'; checks never do
    log_format: LogFormat = "text"  # 'json' for machines
