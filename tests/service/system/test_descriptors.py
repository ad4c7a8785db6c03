"""A process that has few file descriptors takes fewer connections, and says so."""

import logging
import resource
import subprocess
import sys

from service.system.descriptors import connections_at_most, raise_limit

ASKED = "from service.system.descriptors import *; print(raise_limit(), connections_at_most(1000), end=' ')"


def at_limit(soft: int, hard: int) -> list[int]:
    command = ["sh", "-c", f'ulimit -S -n {soft} && ulimit -H -n {hard} && exec "$@"', "sh", sys.executable, "-c"]
    more = "; print(connections_at_most(1000, 3000), connections_at_most(10))"
    found = subprocess.run([*command, ASKED + more], capture_output=True, text=True, check=True)
    return [int(word) for word in found.stdout.split()]


def test_the_soft_limit_is_raised_to_the_hard_one() -> None:
    assert (
        raise_limit() == resource.getrlimit(resource.RLIMIT_NOFILE)[0] == resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    )


def test_connections_leave_descriptors_for_the_rest() -> None:
    limit, alone, beside_others, few = at_limit(40, 80)
    assert limit == 80
    assert 30 < alone < 60
    assert 7 < beside_others < 15, "a quarter of them, as of what was wanted"
    assert few == 10


def test_what_is_wanted_is_given_where_there_is_enough(caplog) -> None:
    with caplog.at_level(logging.WARNING):
        assert connections_at_most(10) == 10
    assert not caplog.records
