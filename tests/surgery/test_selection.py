"""The budget in hand numbers, and the rules for equals and broken scores."""

import math

import pytest
import torch

from continual_agents.surgery.selection import FEW, Budget, dormant, least_useful, lowest
from continual_agents.surgery.self_normalized_resets import silence_limit
from continual_agents.surgery.utility import dormancy


def run(budget: Budget, steps: int) -> dict[int, int]:
    spent = {}
    for step in range(1, steps + 1):
        count = budget.spend(step)
        if count:
            budget.born(step, count)
            spent[step] = count
    return spent


def test_the_spec_example_one_replacement_every_500_steps() -> None:
    spent = run(Budget(2000, 1e-6, 1), 2002)
    # the newborn is young for one step, and .002 added 500 times may miss 1 by a rounding: one step either way
    assert all(abs(step - expected) <= 1 for step, expected in zip(spent, (501, 1001, 1501, 2001), strict=True))
    assert set(spent.values()) == {1}


def test_nothing_is_saved_up_while_units_are_immature() -> None:
    """rate .5 of 4 units: 2 a step once they are older than 10 steps, not a burst of 22."""
    budget = Budget(4, 0.5, 10)
    assert run(budget, 12) == {11: 2, 12: 1}
    assert budget.eligible == 1  # of the 2 left at step 12, one went
    assert budget.carried == 0.0


def test_the_fraction_is_carried_not_truncated() -> None:
    """rate .3 of 2 units (maturity 1): .6 at step 2, 1.2 -> one at step 3, .2 carried; .5 (one is young), 1.1 -> one.

    The newborn of step 3 is eligible again at step 5.
    """
    budget = Budget(2, 0.3, 1)
    assert list(run(budget, 5)) == [3, 5]
    assert budget.carried == pytest.approx(0.1)


def test_the_budget_never_exceeds_the_eligible() -> None:
    budget = Budget(4, 1.0, 1)
    assert run(budget, 6) == {2: 4, 4: 4, 6: 4}
    assert Budget(3, 1.0, 5, count_all=True).spend(6) == 3


def test_eligible_is_the_width_minus_what_was_born_lately() -> None:
    budget = Budget(10, 0.1, 3)
    counts = []
    for step in range(1, 12):
        count = budget.spend(step)
        counts.append((budget.eligible, count))
        if count:
            budget.born(step, count)
    # step 4: all 10 mature, one goes; 9 left: .9, 1.8 -> one; ...
    assert counts[:3] == [(0, 0)] * 3
    assert counts[3] == (10, 1)
    assert counts[4] == (9, 0)
    assert counts[5] == (9, 1)
    assert counts[6] == (8, 1)  # .8 + .8
    assert counts[7][0] == 8  # 10 without those born at 6 and 7; that of 4 is mature again at 8


def test_count_all_grows_with_the_width() -> None:
    narrow, wide = Budget(10, 0.1, 3), Budget(10, 0.1, 3, count_all=True)
    for budget in (narrow, wide):
        run(budget, 20)
    assert sum(run(Budget(10, 0.1, 3, count_all=True), 20).values()) >= sum(run(Budget(10, 0.1, 3), 20).values())
    assert wide.state_dict() != narrow.state_dict()


@pytest.mark.parametrize("step", [0, 5, 9, 10, 11, 57])
def test_next_replacement_is_where_it_says(step: int) -> None:
    budget = Budget(8, 0.013, 10)
    run(budget, step)
    promised = budget.next_in(step)
    for later in range(step + 1, step + 100):
        if budget.spend(later):
            assert later - step == promised
            return
    raise AssertionError("no replacement within 100 steps")


def test_no_rate_no_replacement() -> None:
    budget = Budget(5, 0.0, 1)
    assert run(budget, 50) == {}
    assert budget.next_in(50) == math.inf


def test_state_continues() -> None:
    a, b = Budget(7, 0.07, 4), Budget(7, 0.07, 4)
    run(a, 33)
    b.load_state_dict(a.state_dict())
    for step in range(34, 90):
        n = a.spend(step)
        assert b.spend(step) == n
        a.born(step, n)
        b.born(step, n)


@pytest.mark.parametrize(
    ("rate", "maturity", "word"),
    [(-0.1, 1, "rate"), (1.5, 1, "rate"), (0.1, -1, "maturity"), (0.1, 0, "maturity"), (0.1, 1.5, "maturity")],
)
def test_out_of_range(rate: float, maturity: int, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        Budget(4, rate, maturity)


def test_least_useful_corrects_the_bias_and_leaves_the_young() -> None:
    decay = 0.9
    # running utilities after 1, 2 and 30 steps of constant worth 3, 2, 2.5, and a young one of worth 0
    age = torch.tensor([11, 12, 30, 3])
    worth = torch.tensor([3.0, 2.0, 2.5, 0.0])
    utility = worth * (1 - decay**age)
    assert utility[1] == utility[:3].min()
    assert least_useful(utility, age, 3, maturity=10, decay=decay).tolist() == [1, 2, 0]
    # uncorrected ranking would take the younger of two equals
    age = torch.tensor([40, 11])
    utility = torch.tensor([2.0, 2.1]) * (1 - decay**age)
    assert utility[1] < utility[0]
    assert least_useful(utility, age, 1, maturity=10, decay=decay).tolist() == [0]


def test_of_equals_the_lowest_index_goes() -> None:
    utility, age = torch.zeros(50), torch.full((50,), 9)
    assert least_useful(utility, age, 4, maturity=2, decay=0.5).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("count", [1, 2, FEW, FEW + 1])
def test_the_lowest_scores_in_order_and_of_equals_the_lowest_index(count: int) -> None:
    g = torch.Generator().manual_seed(1)
    scores = torch.randint(0, 4, (5, 20), generator=g).float()
    scores[:, 7] = math.inf  # a unit that must stay
    kept = scores.clone()
    expected = [sorted(range(20), key=lambda i, row=row: (row[i], i))[:count] for row in scores.tolist()]
    assert lowest(scores, count).tolist() == expected
    assert torch.equal(scores, kept)


def test_broken_scores_go_first() -> None:
    utility = torch.tensor([1.0, math.nan, 0.5, math.inf, 0.0])
    age = torch.full((5,), 9)
    assert least_useful(utility, age, 4, maturity=2).tolist() == [1, 3, 4, 2]


def test_leading_dims_are_independent_runs() -> None:
    g = torch.Generator().manual_seed(0)
    utility, age = torch.rand(3, 2, 9, generator=g), torch.randint(1, 30, (3, 2, 9), generator=g)
    together = least_useful(utility, age, 2, maturity=5, decay=0.9)
    for r in range(3):
        for k in range(2):
            assert torch.equal(together[r, k], least_useful(utility[r, k], age[r, k], 2, maturity=5, decay=0.9))


def test_dormancy_in_hand_numbers() -> None:
    score = dormancy(torch.tensor([0.0, 1.0, 3.0]))
    torch.testing.assert_close(score, torch.tensor([0.0, 0.75, 2.25]))
    assert dormant(score, 0.75).tolist() == [True, True, False]
    assert dormancy(torch.zeros(4)).tolist() == [0.0] * 4


def test_silence_limit_is_the_geometric_tail() -> None:
    """A unit that fires every second step is silent 7 steps with probability 2^-7 = .0078."""
    limit = silence_limit(torch.tensor([20.0, 20.0, 0.0]), torch.tensor([10.0, 2.0, 0.0]), 2.0**-7)
    assert limit[0].item() == pytest.approx(7.0, rel=1e-5)
    assert 0.9 ** limit[1].item() == pytest.approx(2.0**-7, rel=1e-4)
    assert limit[2] == 0
