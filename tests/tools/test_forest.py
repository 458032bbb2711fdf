"""The figure of many methods: a row each, in order, with the table's own numbers."""

from __future__ import annotations

import numpy as np
import pytest

from tools.figures import forest


def row(setting, value, low, high, verdict, *, dead):
    return {
        "setting": setting, "measure": "return", "higher_is_better": True, "n": 5, "plasticity": verdict,
        "minus_fresh": value, "minus_fresh_low": low, "minus_fresh_high": high, "last": 7.0, "last_low": 6.0,
        "last_high": 8.0, "dead_units": dead, "effective_rank": 3.0, "weight_magnitude": 0.1,
    }  # fmt: skip


@pytest.fixture
def rows():
    nan = np.nan
    return [
        row("PPO", -4.0, -6.0, -2.0, "lost", dead=0.5),
        row("fresh network", nan, nan, nan, "reference", dead=0.1),
        row("shrink and perturb", 3.0, 1.0, 5.0, "above", dead=0.2),
        row("not measured", nan, nan, nan, "unknown", dead=nan),
        row("L2", -1.0, -3.0, 1.0, "level", dead=0.3),
    ]


def test_the_best_stands_first_the_fresh_network_at_nought_and_the_unknown_last(rows):
    axes = forest.forest_figure(rows).axes
    names = [label.get_text() for label in axes[0].get_yticklabels()]
    assert names == ["shrink and perturb", "fresh network", "L2", "PPO", "not measured"]
    assert axes[0].get_ylim()[0] > axes[0].get_ylim()[1]  # the first row is on top
    spans = [line.get_xdata() for line in axes[0].lines if len(line.get_xdata()) == 2 and line.get_linestyle() == "-"]
    assert [list(map(float, span)) for span in (spans[1], spans[4])] == [[1.0, 5.0], [-6.0, -2.0]]
    dead = next(one for one in axes if one.get_title(loc="left") == "dead units (%)")
    assert [bar.get_width() for bar in dead.patches][:4] == pytest.approx([20.0, 10.0, 30.0, 50.0])


def test_an_error_is_best_where_it_is_smallest(rows):
    for one in rows:
        one["higher_is_better"] = False
    names = [label.get_text() for label in forest.forest_figure(rows).axes[0].get_yticklabels()]
    assert names[:4] == ["PPO", "L2", "fresh network", "shrink and perturb"]


def test_without_a_fresh_network_the_last_tasks_are_shown(rows):
    for one in rows:
        one |= {"plasticity": "unknown", "minus_fresh": np.nan}
    first = forest.forest_figure(rows).axes[0]
    assert first.get_title(loc="left") == "return in the last tasks"
    assert first.get_xlabel() == "mean and 95% interval, n = 5"
