import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from training.config import Recipe
from training.learning import schedules


def adjusted():
    """Two blocks, the second with a tenth of the first one's rate."""
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr} for lr in (1.0, 0.1)]
    return torch.optim.SGD(groups)


def step(optimizer, schedule):
    """The two blocks' rates in one update."""
    rates = [float(group["lr"]) for group in optimizer.param_groups]
    optimizer.step()
    schedule.step()
    return rates


def course(updates_per_epoch=10, **fields):
    """The first block's rate in each update, and what is left after the last."""
    recipe = Recipe(**{"epochs": 10, "warmup_epochs": 2, **fields})
    optimizer = adjusted()
    schedule = schedules.schedule(optimizer, recipe, updates_per_epoch)
    rates = [step(optimizer, schedule) for _ in range(updates_per_epoch * recipe.epochs)]
    assert all(slow == pytest.approx(fast / 10) for fast, slow in rates)
    return [fast for fast, _ in rates], float(schedule.get_last_lr()[0])


def test_the_rate_warms_up_then_falls_to_zero_along_a_cosine():
    rates, left = course()
    assert rates[:3] == pytest.approx([0.05, 0.1, 0.15])
    assert rates[19] == max(rates) == 1.0
    assert rates[60] == pytest.approx(0.5 * (1 + math.cos(math.pi * 0.5)))
    assert left == pytest.approx(0, abs=1e-12)


def test_steps_fall_at_the_end_of_every_so_many_epochs():
    rates, _ = course(schedule="step", step_epochs=3, step_factor=0.5)
    assert rates[:3] == pytest.approx([0.05, 0.1, 0.15])
    assert [rates[epoch * 10] for epoch in range(2, 10)] == [1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.125]
    assert rates[29] == 1
    assert rates[59] == 0.5


def test_a_constant_rate_stays_after_the_warm_up():
    rates, left = course(schedule="constant")
    assert rates[:3] == pytest.approx([0.05, 0.1, 0.15])
    assert set(rates[19:]) == {1.0}
    assert left == 1.0


def test_one_cycle_rises_for_three_tenths_and_falls_to_nearly_nothing():
    rates, _ = course(schedule="one-cycle")
    assert rates[0] == pytest.approx(1 / 25)
    assert rates[29] == max(rates) == 1.0
    assert rates[:30] == sorted(rates[:30])
    assert rates[29:] == sorted(rates[29:], reverse=True)
    assert rates[-1] == pytest.approx(1 / 25 / 1e4)


@given(
    st.sampled_from(["cosine", "step", "one-cycle", "constant"]), st.integers(1, 4), st.integers(1, 7), st.floats(0, 9)
)
def test_a_schedule_goes_on_from_its_state_exactly(kind, epochs, updates_per_epoch, warmup):
    recipe = Recipe(schedule=kind, epochs=epochs, warmup_epochs=warmup, step_epochs=1)
    updates = epochs * updates_per_epoch
    optimizer = adjusted()
    schedule = schedules.schedule(optimizer, recipe, updates_per_epoch)
    first = updates // 2
    for _ in range(first):
        step(optimizer, schedule)
    resumed = adjusted()
    again = schedules.schedule(resumed, recipe, updates_per_epoch)
    resumed.load_state_dict(optimizer.state_dict())
    again.load_state_dict(schedule.state_dict())
    for _ in range(first, updates):
        assert step(optimizer, schedule) == step(resumed, again)
