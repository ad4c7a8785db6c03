"""File descriptors: as many as the system grants, and how many of them connections may take.

A server that has none left cannot accept, and what cannot be accepted wakes it again and again.
"""

import logging
import resource
from pathlib import Path

log = logging.getLogger(__name__)

_SPARE = 24  # for files, models that are loaded, the operations port, and connections that are being turned away


def raise_limit() -> int:
    """The number of descriptors that this process may have, raised to what the system grants without being asked."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def connections_at_most(wanted: int, others: int = 0) -> int:
    """`wanted`, or their part of what the limit of descriptors leaves for them and `others`; at least 1."""
    limit = raise_limit()
    if limit == resource.RLIM_INFINITY:
        return wanted
    room = limit - sum(1 for _ in Path("/proc/self/fd").iterdir()) - _SPARE
    if room >= wanted + others:
        return wanted
    part = max(1, room * wanted // (wanted + others))
    log.warning("at most %d connections, not %d: the system grants %d file descriptors", part, wanted, limit)
    return part
