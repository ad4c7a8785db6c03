"""Which addresses are one caller."""

import pytest

from service.core.call import caller_at
from service.rpc.instrumented import caller_of


@pytest.mark.parametrize(
    ("peer", "key"),
    [
        ("ipv4:192.0.2.1:5000", "192.0.2.1"),
        ("ipv6:%5B2001:db8:1:2:3:4:5:6%5D:5000", "2001:db8:1:2::/64"),
        ("ipv6:[2001:db8:1:2::9]:5001", "2001:db8:1:2::/64"),
        ("ipv6:%5B::ffff:192.0.2.1%5D:5000", "192.0.2.1"),
        ("ipv6:%5Bfe80::1%25eth0%5D:5000", "fe80::/64"),
        ("unix:/run/anther.socket", "unix:/run/anther.socket"),
        ("", ""),
    ],
)
def test_a_peers_port_is_no_part_of_the_caller(peer: str, key: str) -> None:
    assert caller_of(peer).key == key


def test_a_stranger_has_no_name_that_a_metric_could_show() -> None:
    assert caller_at("192.0.2.1").name == ""
