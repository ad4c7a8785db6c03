"""What gRPC itself is told about its port: limits before our code sees a call."""

from service.config import Settings
from service.system.descriptors import connections_at_most

ENVELOPE_BYTES = 64 * 1024  # what a request may hold beside its image
_WINDOW_BYTES = 128 * 1024  # of a request may come unasked: a usual image in one go, which 64 KB would not be
_STREAMS = 100  # calls at once on one connection; more wait at the client, which costs it nothing
_METADATA_BYTES = 16 * 1024  # headers of a call, and of its answer
_HANDSHAKE_S = 10.0  # for a new connection's TLS and settings
_PENDING = 8192  # calls that our code has not seen yet; more end as CANCELLED, which is better than without memory
_SILENCE_S, _PATIENCE_S = 60.0, 20.0  # on a connection before it is pinged; until the ping must be answered
_CALLERS_PINGS_S = 10.0  # more often makes gRPC close the connection


def server_options(settings: Settings) -> list[tuple[str, int]]:
    http = 0 if settings.http_port is None else settings.http_connections
    return [
        ("grpc.max_receive_message_length", settings.max_image_bytes + ENVELOPE_BYTES),
        # A second server on the port must fail, not share the traffic; workers do share it.
        ("grpc.so_reuseport", int(settings.workers > 1)),
        ("grpc.http2.lookahead_bytes", _WINDOW_BYTES),
        ("grpc.http2.bdp_probe", 0),  # with a window this large its pings find out nothing of use
        ("grpc.max_concurrent_streams", _STREAMS),
        # It counts calls that have ended and are not yet forgotten, and refuses those of callers who keep to the limit.
        ("grpc.http.overload_protection", 0),
        ("grpc.server.max_pending_requests", _PENDING),
        ("grpc.server.max_pending_requests_hard_limit", _PENDING),
        ("grpc.max_metadata_size", _METADATA_BYTES),
        ("grpc.absolute_max_metadata_size", _METADATA_BYTES),
        ("grpc.max_allowed_incoming_connections", connections_at_most(settings.grpc_connections, http)),
        ("grpc.max_connection_idle_ms", int(settings.idle_s * 1000)),
        ("grpc.server_handshake_timeout_ms", int(_HANDSHAKE_S * 1000)),
        *_keepalive(),
    ]


def _keepalive() -> list[tuple[str, int]]:
    """Pings find callers whose machine lost its power or its network. Without them their connections, streams and
    unfinished uploads would be kept for two hours, gRPC's default. Callers may ping, too.
    """
    return [
        ("grpc.keepalive_time_ms", int(_SILENCE_S * 1000)),
        ("grpc.http2.ping_timeout_ms", int(_PATIENCE_S * 1000)),  # this ends the connection, not the next
        ("grpc.keepalive_timeout_ms", int(_PATIENCE_S * 1000)),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", int(_CALLERS_PINGS_S * 1000)),
    ]
