"""How many cores this process may really use: the affinity mask and the cgroup quota, never the host's count."""

import math
import os
from pathlib import Path

_CGROUP_V2 = Path("/sys/fs/cgroup/cpu.max")
_CGROUP_V1 = (Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"), Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us"))


def usable_cores() -> int:
    """At least 1. A quota of 1.5 cores counts as 2: a lane that waits a little beats a core half idle."""
    available = len(os.sched_getaffinity(0))
    quota = quota_of(_read(_CGROUP_V2) or " ".join(_read(path) for path in _CGROUP_V1))
    return available if quota is None else max(1, min(available, math.ceil(quota)))


def quota_of(text: str) -> float | None:
    """Cores granted by the text 'QUOTA PERIOD' of a cgroup; None where there is no limit ('max' or -1)."""
    quota, _, period = text.strip().partition(" ")
    if not quota.isdigit() or not period.isdigit() or int(period) == 0:
        return None
    return int(quota) / int(period)


def _read(path: Path) -> str:
    return path.read_text().strip() if path.is_file() else ""
