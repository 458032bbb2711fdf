import numpy as np
import pytest
import torch
from scipy import stats

from continual_agents import plasticity


def draws(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("runs", [1, 3, 4, 5, 8, 11])
def test_interquartile_mean_is_the_trimmed_mean(runs):
    values = draws(runs, 6)
    expected = stats.trim_mean(values.numpy(), 0.25, axis=0)
    np.testing.assert_allclose(plasticity.interquartile_mean(values).numpy(), expected)


def test_interquartile_mean_by_hand():
    values = torch.tensor([[100.0], [1.0], [2.0], [-50.0]])
    assert plasticity.interquartile_mean(values).tolist() == [1.5]


@pytest.mark.parametrize("statistic", [plasticity.mean, plasticity.interquartile_mean])
def test_bootstrap_agrees_with_scipy(statistic):
    values = draws(12, 3) * 4 + 2
    ours = plasticity.bootstrap(values, statistic, resamples=20_000)
    for position in range(3):
        theirs = stats.bootstrap(
            (values[:, position].numpy(),),
            lambda x, axis: np.mean(x, axis) if statistic is plasticity.mean else stats.trim_mean(x, 0.25, axis),
            n_resamples=20_000, method="percentile", rng=np.random.default_rng(0),
        ).confidence_interval  # fmt: skip
        assert ours.low[position].item() == pytest.approx(theirs.low, abs=0.06)
        assert ours.high[position].item() == pytest.approx(theirs.high, abs=0.06)


def test_interval_covers_the_truth_about_as_often_as_it_says():
    hits = 0
    for seed in range(200):
        estimate = plasticity.bootstrap(draws(20, seed=seed) + 5.0, resamples=500, seed=seed)
        hits += bool(estimate.low <= 5.0 <= estimate.high)
    assert 174 <= hits <= 196  # 92.5% expected for percentile intervals over 20 runs


def test_one_vector_and_one_column_are_the_same():
    values = draws(9)
    one, column = plasticity.bootstrap(values), plasticity.bootstrap(values[:, None])
    assert one.value.shape == ()
    assert one.low == column.low[0]
    assert one.high == column.high[0]


def test_same_seed_same_interval_and_block_size_does_not_matter():
    values = draws(30, 400)
    together = plasticity.bootstrap(values)  # 4M / (2000 * 30) = 66 positions a block
    alone = plasticity.bootstrap(values[:, 333])
    torch.testing.assert_close(together.low[333], alone.low)
    assert torch.equal(together.high, plasticity.bootstrap(values).high)
    assert not torch.equal(together.high, plasticity.bootstrap(values, seed=1).high)


def test_strata_are_resampled_in_their_own_number():
    # two environments whose runs are all alike: within-stratum resampling has no spread at all
    values = torch.tensor([0.0] * 5 + [10.0] * 5)
    stratified = plasticity.bootstrap(values, strata=["a"] * 5 + ["b"] * 5)
    assert (stratified.low.item(), stratified.value.item(), stratified.high.item()) == (5.0, 5.0, 5.0)
    assert plasticity.bootstrap(values).low < 3.5


def test_a_single_run_has_no_interval():
    estimate = plasticity.bootstrap(torch.tensor([3.0]))
    assert estimate.value.item() == 3.0
    assert estimate.low.isnan()


def test_refusals():
    with pytest.raises(ValueError, match="inf or nan"):
        plasticity.bootstrap(torch.tensor([1.0, float("nan")]))
    with pytest.raises(ValueError, match="confidence=95"):
        plasticity.bootstrap(torch.ones(3), confidence=95)
    with pytest.raises(ValueError, match="2 strata labels for 3 runs"):
        plasticity.bootstrap(torch.ones(3), strata=["a", "b"])
    with pytest.raises(ValueError, match="expected"):
        plasticity.bootstrap(torch.ones(0))
