import math

import pytest
import torch

from continual_agents import plasticity

TASKS = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
CURVE = torch.tensor([2.0, 6.0, 9.0, 11.0, 1.0, 5.0, 9.0, 12.0])


def test_by_hand_window_1():
    result = plasticity.relearning(CURVE, TASKS)
    assert result.level.tolist() == [11.0]
    assert result.drop.tolist() == [10.0]
    assert result.recovery.tolist() == [4.0]  # 9.9 is needed, 12 reaches it on the fourth record
    assert result.area.tolist() == [10.0 + 6.0 + 2.0 + 0.0]


def test_by_hand_window_2_and_uneven_steps():
    steps = torch.tensor([10, 20, 30, 40, 45, 60, 70, 90])
    result = plasticity.relearning(CURVE, TASKS, steps, window=2, fraction=0.7)
    assert result.level.tolist() == [10.0]  # (9 + 11) / 2
    assert result.drop.tolist() == [7.0]  # (1 + 5) / 2 = 3
    assert result.recovery.tolist() == [30.0]  # 7 is needed: (5 + 9) / 2 at step 70
    assert result.area.tolist() == [9.0 * 5 + 5.0 * 15 + 1.0 * 10]


def test_never_recovered_is_infinite_and_another_task_does_not_count():
    tasks = torch.tensor([0, 1, 1, 2])
    result = plasticity.relearning(torch.tensor([10.0, 0.0, 1.0, 10.0]), tasks)
    assert result.recovery.tolist() == [math.inf, 1.0]
    assert result.level.tolist() == [10.0, 1.0]
    assert result.drop.tolist() == [10.0, -9.0]  # a gain is a negative drop


def test_errors_are_mirrored():
    errors = 20.0 - CURVE
    result = plasticity.relearning(errors, TASKS, higher_is_better=False)
    assert result.level.tolist() == [9.0]
    assert result.drop.tolist() == [10.0]
    assert result.area.tolist() == [18.0]
    # within a tenth of 9: an error of at most 9.9; 20 - 11 = 9, 20 - 12 = 8
    assert result.recovery.tolist() == [4.0]


def test_negative_levels():
    # level -100; within a tenth of it is -110
    result = plasticity.relearning(torch.tensor([-100.0, -200.0, -111.0, -109.0]), torch.tensor([0, 1, 1, 1]))
    assert result.recovery.tolist() == [3.0]


def test_runs_dims_and_no_change_at_all():
    stack = torch.stack([CURVE, CURVE * 2, CURVE.flip(0)])
    together = plasticity.relearning(stack, TASKS, window=2)
    for run in range(3):
        alone = plasticity.relearning(stack[run], TASKS, window=2)
        assert torch.equal(together.recovery[run], alone.recovery)
        assert torch.equal(together.area[run], alone.area)
    assert plasticity.relearning(stack, torch.zeros(8)).drop.shape == (3, 0)


def test_task_shorter_than_the_window():
    result = plasticity.relearning(torch.tensor([4.0, 1.0, 5.0]), torch.tensor([0, 1, 2]), window=3)
    assert result.level.tolist() == [4.0, 1.0]
    assert result.recovery.tolist() == [math.inf, 1.0]


def test_refusals():
    with pytest.raises(ValueError, match="differ"):
        plasticity.relearning(CURVE, TASKS[:3])
    with pytest.raises(ValueError, match="do not increase"):
        plasticity.relearning(CURVE, TASKS, torch.zeros(8))
    with pytest.raises(ValueError, match="window=0"):
        plasticity.relearning(CURVE, TASKS, window=0)


def test_plasticity_index_by_hand():
    # run 0: slope of (3, 2, 1) is -1; run 1: (4, 2, 0) is -2
    index = plasticity.plasticity_index(torch.tensor([[3.0, 2.0, 1.0], [4.0, 2.0, 0.0]]))
    assert index.first.value.item() == 3.5
    assert index.last.value.item() == 0.5
    assert index.change.value.item() == -3.0
    assert index.slope.value.item() == -1.5
    assert (index.change.low.item(), index.change.high.item()) == (-4.0, -2.0)
    assert index.runs == 2
    assert index.verdict == "unknown"  # too few runs to say


def test_plasticity_index_ends_average_and_errors_flip():
    values = torch.tensor([[1.0, 2.0, 3.0, 5.0], [1.0, 2.0, 4.0, 6.0]]).repeat(3, 1)
    index = plasticity.plasticity_index(values, ends=2, higher_is_better=False)
    assert index.first.value.item() == 1.5
    assert index.last.value.item() == 4.5
    assert index.change.value.item() == -3.0
    assert index.slope.value.item() < 0
    assert index.verdict == "loses"
    assert plasticity.plasticity_index(values, ends=2).verdict == "gains"


def test_verdicts():
    noise = torch.randn(20, 10, generator=torch.Generator().manual_seed(3))
    assert plasticity.plasticity_index(noise, ends=3).verdict == "keeps"
    assert plasticity.plasticity_index(noise[:1]).verdict == "unknown"
    with pytest.raises(ValueError, match="ends=6"):
        plasticity.plasticity_index(noise, ends=6)
    with pytest.raises(ValueError, match="2 tasks"):
        plasticity.plasticity_index(noise[:, :1])
