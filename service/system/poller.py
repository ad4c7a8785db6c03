"""Which of its two pollers gRPC serves with.

Its event engine, the default, has threads that hand what they read to one another and then to the thread that waits
for it. With the older poller that thread reads by itself, which leaves 0.3 to 0.7 % more of the cores to the models.
gRPC calls the choice an experiment; one that it no longer knows it mentions in its log and ignores.
"""

import os

_VARIABLE, _OLDER = "GRPC_EXPERIMENTS", "-event_engine_listener"


def choose() -> None:
    """For this process and those that it starts, before gRPC is imported. What the environment asks for stays."""
    os.environ.setdefault(_VARIABLE, _OLDER)
