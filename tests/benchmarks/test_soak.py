"""The soak's own judgement: what it calls good, and that a fault of each kind is found."""

import struct
import time
from types import SimpleNamespace
from typing import Any

import click
import grpc
import pytest

from benchmarks.soak import chosen, verdict
from benchmarks.soak_material import differs
from benchmarks.soak_models import Publisher
from benchmarks.soak_traffic import KINDS, Kind, ended, wrong_rows
from benchmarks.tally import Outcome, Tally
from benchmarks.vitals import Vitals
from bundle.repository import Repository

OK = frozenset({"OK"})
KIND = Kind("classify", 1, lambda _: [Outcome("OK")], OK)
STEADY = [Vitals(300 * 10**6, 20, 14, float(second)) for second in range(12)]


def judged(tally: Tally, samples: list[Vitals] = STEADY, served: int = 3) -> list[str]:
    return verdict(tally, samples, [KIND], served, reloads=True)[1]


@pytest.fixture
def good() -> Tally:
    tally = Tally()
    tally.add("classify", OK, [Outcome("OK")], 0.01)
    return tally


def growing(**last: int) -> list[Vitals]:
    """As `STEADY`, but for the last third."""
    steady = {"memory": 300 * 10**6, "descriptors": 20, "threads": 14}
    return STEADY[:8] + [Vitals(**{**steady, **last}, cpu_s=9.0)] * 4


def test_a_good_run_has_no_reasons_and_tells_what_was_measured(good) -> None:
    result, reasons = verdict(good, STEADY, [KIND], 3, reloads=True)
    assert reasons == []
    assert result["calls"] == {"classify": {"OK": 1}}
    assert (result["wrong"], result["unexpected"], result["classify_p99_ms"], result["cpu_s"]) == (0, 0, 10.0, 11.0)
    assert result["memory_mb"] == {"early": 300.0, "late": 300.0, "most": 300.0, "flat": True}


@pytest.mark.parametrize(
    ("last", "reason"),
    [
        ({"memory": 400 * 10**6}, "memory_mb grew from 300 to 400"),
        ({"descriptors": 30}, "descriptors grew from 20 to 30"),
        ({"threads": 20}, "threads grew from 14 to 20"),
    ],
)
def test_each_kind_of_leak_is_a_reason(good, last: dict[str, int], reason: str) -> None:
    assert judged(good, growing(**last)) == [reason]


def test_wrong_answers_and_unexpected_ends_are_reasons(good) -> None:
    good.add("classify", OK, [Outcome("OK", "roses"), Outcome("INTERNAL")], 0.01)
    assert judged(good) == ["1 wrong answers (classify)", "1 unexpected ends (classify: INTERNAL)"]


def test_a_kind_that_was_never_tried_is_a_reason() -> None:
    assert judged(Tally()) == ["no call of the kind 'classify' was made"]


def test_a_server_that_takes_up_no_new_version_is_a_reason(good) -> None:
    assert judged(good, served=1) == ["no new version came into service"]
    assert verdict(good, STEADY, [KIND], 1, reloads=False)[1] == []


def test_kinds_are_chosen_by_name() -> None:
    assert chosen("") == KINDS
    assert [kind.name for kind in chosen("bad, classify")] == ["classify", "bad"]
    with pytest.raises(click.UsageError, match="no kind of traffic is called nothing"):
        chosen("classify,nothing")


def test_kinds_have_names_and_shares_of_their_own() -> None:
    assert len({kind.name for kind in KINDS}) == len(KINDS)
    assert all(kind.share > 0 and kind.codes for kind in KINDS)


@pytest.mark.parametrize(
    ("found", "wrong"),
    [
        (("daisy", 0.9), ""),
        (("daisy", 0.9005), ""),
        (("daisy", 0.95), "daisy 0.9500 and not daisy 0.9000"),
        (("roses", 0.9), "roses 0.9000 and not daisy 0.9000"),
    ],
)
def test_an_answer_is_right_when_label_and_probability_are(found: tuple[str, float], wrong: str) -> None:
    assert differs(("daisy", 0.9), found) == wrong


def classified(*rows: str) -> bytes:
    return b"".join(struct.pack("<I", len(row)) + row.encode() for row in rows)


def test_rows_of_a_batch_are_each_compared() -> None:
    caller: Any = SimpleNamespace(
        material=SimpleNamespace(answers={b"a": ("daisy", 0.9), b"b": ("roses", 0.8)}),
    )
    assert wrong_rows(caller, [b"a", b"b"], classified("0.9:0:daisy", "0.8:1:roses")) == ""
    assert "not roses" in wrong_rows(caller, [b"a", b"b"], classified("0.9:0:daisy", "0.9:0:daisy"))
    assert wrong_rows(caller, [b"a", b"b"], classified("0.9:0:daisy")) == "1 rows and not 2"


class Ended:
    """A call that ended as it was told to."""

    def __init__(self, result: Any) -> None:
        self._result, self.cancelled = result, False

    def result(self, timeout: float) -> Any:
        if isinstance(self._result, Exception):
            raise self._result
        return self._result

    def cancel(self) -> None:
        self.cancelled = True


class Refused(grpc.RpcError):
    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.INVALID_ARGUMENT


def test_every_end_of_a_call_has_its_outcome() -> None:
    assert ended(Ended("answer"), lambda answer: f"wrong {answer}") == [Outcome("OK", "wrong answer")]
    assert ended(Ended(Refused())) == [Outcome("INVALID_ARGUMENT")]
    assert ended(Ended(grpc.FutureCancelledError())) == [Outcome("CANCELLED")]
    hanging = Ended(grpc.FutureTimeoutError())
    assert ended(hanging) == [Outcome("HANGING")]
    assert hanging.cancelled


def test_versions_come_and_old_ones_go(tmp_path, make_bundle) -> None:
    source, root = make_bundle(tmp_path / "source"), tmp_path / "models"
    publisher = Publisher(root, source, "flowers", every_s=0.01)
    assert Repository(root).versions("flowers") == [1]
    with publisher:
        while publisher.version < 6:
            time.sleep(0.01)
    versions = Repository(root).versions("flowers")
    assert versions == list(range(publisher.version - 2, publisher.version + 1))
    assert Repository(root).open("flowers").version == publisher.version
