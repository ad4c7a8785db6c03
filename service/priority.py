"""How much of the processor a thread or a process gets where others want it too; on Linux each thread has its own."""

import contextlib
import logging
import os
import threading

log = logging.getLogger(__name__)

_LOWEST = 19


def lower(steps: int) -> int:
    """Make the calling thread `steps` nicer to others, for good: going back takes privileges. Returns its niceness."""
    thread = threading.get_native_id()
    niceness = min(_LOWEST, os.getpriority(os.PRIO_PROCESS, thread) + steps)
    os.setpriority(os.PRIO_PROCESS, thread, niceness)
    return niceness


def idle(process: int) -> bool:
    """Let a child process run only where nobody else wants to; False where that is not to be had."""
    try:
        os.sched_setscheduler(process, os.SCHED_IDLE, os.sched_param(0))
    except OSError as exc:  # forbidden in some containers, or it has ended
        log.warning("process %d cannot be scheduled as idle (%s); it gets the lowest priority", process, exc.strerror)
        with contextlib.suppress(ProcessLookupError):
            os.setpriority(os.PRIO_PROCESS, process, _LOWEST)
        return False
    return True
