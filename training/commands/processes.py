"""A command under torchrun: the first process runs it, and the others take part in its fine-tunings."""

import functools
from collections.abc import Callable
from typing import Any

from training.learning import torchrun


def several_processes(command: Callable[..., None]) -> Callable[..., None]:
    """For the function of a command that trains and has an option --device."""

    @functools.wraps(command)
    def run(*arguments: Any, **options: Any) -> None:
        place = torchrun.place()
        if place is None:
            return command(*arguments, **options)

        from training.learning import distributed, loop

        with distributed.joined(place, options["device"]) as world:
            if not world.leads:
                return loop.follow(world)
            command(*arguments, **options)
            world.tell(None)
        return None

    return run
