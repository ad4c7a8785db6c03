import pytest

from training.errors import ProcessesUnusable
from training.learning import torchrun
from training.learning.torchrun import Place


@pytest.fixture
def environment(monkeypatch):
    def say(**variables):
        for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return say


def test_a_process_that_torchrun_did_not_start_has_no_place(environment):
    environment(WORLD_SIZE="2")
    assert torchrun.place() is None


def test_the_place_is_what_torchrun_says(environment):
    environment(RANK="5", WORLD_SIZE="8", LOCAL_RANK="1", LOCAL_WORLD_SIZE="4")
    assert torchrun.place() == Place(rank=5, size=8, local_rank=1, local_size=4)


def test_half_a_place_is_refused_by_the_name_that_is_missing(environment):
    environment(RANK="0")
    with pytest.raises(ProcessesUnusable, match=r"WORLD_SIZE is '' where a number is expected; .*torchrun"):
        torchrun.place()
