"""How much of the processor a thread gets where others want it too. On Linux that is a matter of each thread's own."""

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


def idle() -> bool:
    """Let the calling thread run only where nobody else wants to; False where it only became as nice as can be."""
    try:
        os.sched_setscheduler(threading.get_native_id(), os.SCHED_IDLE, os.sched_param(0))
    except OSError as exc:  # forbidden in some containers
        log.warning("thread %s cannot be scheduled as idle (%s); it runs at the lowest priority instead",
                    threading.current_thread().name, exc.strerror)  # fmt: skip
        lower(_LOWEST)
        return False
    return True
