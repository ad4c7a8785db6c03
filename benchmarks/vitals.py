"""What a process holds of the machine: memory, file descriptors, threads, processor time (proc(5))."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Vitals:
    memory: int  # resident, in bytes
    descriptors: int
    threads: int
    cpu_s: float  # user and system, since the process began


def read_vitals(pid: int) -> Vitals:
    """Raises `OSError` where the process is gone."""
    folder = Path("/proc") / str(pid)
    resident = int((folder / "statm").read_text().split()[1])
    after_name = re.sub(r".*\) ", "", (folder / "stat").read_text(), flags=re.DOTALL).split()
    return Vitals(
        memory=resident * _PAGE,
        descriptors=sum(1 for _ in (folder / "fd").iterdir()),
        threads=int(after_name[17]),
        cpu_s=(int(after_name[11]) + int(after_name[12])) / _TICKS_PER_S,
    )
