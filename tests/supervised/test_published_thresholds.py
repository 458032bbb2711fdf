"""The target network of the public code, from its own formula, and how much easier its targets are."""

import numpy as np

from supervised.streams.regression import SlowlyChangingRegression, _target_network


def test_published_thresholds_are_the_public_formula() -> None:
    for seed in range(5):
        weights, thresholds, _ = _target_network(seed, 21, 100, 0.7, True)
        negatives = (20 - weights[1:].sum(0) + weights[0]) / 2
        np.testing.assert_allclose(thresholds, 0.7 * 21 - negatives, rtol=1e-6)


def test_what_a_linear_map_cannot_fit_is_a_quarter_less() -> None:
    """Least squares over the 32 patterns of the random bits leaves about 1.08, with the public thresholds about .78."""
    left = {}
    for published in (False, True):
        stream = SlowlyChangingRegression(range(150), change_every=400, published_thresholds=published)
        x, y = (tensor[:, :, 0].numpy() for tensor in stream.next(400))
        errors = []
        for run in range(150):
            seen = np.concatenate([x[:, run, :1], x[:, run, 16:]], 1).astype(float)
            fit = np.linalg.lstsq(seen, y[:, run], rcond=None)[0]
            errors.append(np.square(y[:, run] - seen @ fit).mean())
        left[published] = np.mean(errors)
    assert 0.93 < left[False] < 1.23
    assert 0.65 < left[True] < 0.9
