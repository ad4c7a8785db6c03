"""How much of the processor a process gets where others want it too."""

import contextlib
import logging
import os

log = logging.getLogger(__name__)

_LOWEST = 19


def idle(process: int) -> bool:
    """Let a child process run only where nobody else wants to; False where that is not to be had.

    It needs no privileges on Linux, and there is no way back without them. What the process starts later inherits it.
    """
    try:
        os.sched_setscheduler(process, os.SCHED_IDLE, os.sched_param(0))
    except OSError as exc:  # forbidden in some containers, or it has ended
        log.warning("process %d cannot be scheduled as idle (%s); it gets the lowest priority", process, exc.strerror)
        with contextlib.suppress(ProcessLookupError):
            os.setpriority(os.PRIO_PROCESS, process, _LOWEST)
        return False
    return True
