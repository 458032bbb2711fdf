from pathlib import Path

import pytest
import torch

from continual_agents import plasticity
from continual_agents.plasticity import MEASURES, Measure, Probe

WIDE = torch.tensor([[0.0, 1.0, 0.0, 2.0], [0.0, 1.0, 0.0, 0.0], [0.0, 1.0, 8.0, 2.0], [0.0, 1.0, 0.0, 4.0]])
NARROW = torch.tensor([[0.95, 0.0], [-0.95, 0.0], [0.92, 0.1], [0.99, 0.0]])


def test_by_hand():
    summary = plasticity.summarise(
        {"0": WIDE, "2": NARROW},
        {"0": torch.ones(4, 3), "2": torch.full((2, 4), -3.0)},
        kinds={"2": "tanh"},
    )
    assert summary["plasticity/dead_units/0"] == 0.25
    assert summary["plasticity/dead_units/2"] == 0.5
    assert summary["plasticity/dead_units"].item() == pytest.approx(2 / 6)  # of all six units
    assert summary["plasticity/dormant_units/0"] == 0.25
    assert summary["plasticity/weight_magnitude/2"] == 3.0
    assert summary["plasticity/weight_magnitude"].item() == pytest.approx((12 * 1 + 8 * 3) / 20)
    ranks = [plasticity.effective_rank(h).item() for h in (WIDE, NARROW)]
    assert summary["plasticity/effective_rank/0"].item() == pytest.approx(ranks[0])
    assert summary["plasticity/effective_rank"].item() == pytest.approx(sum(ranks) / 2)
    for rank in ("approximate_rank", "abs_approximate_rank", "stable_rank"):
        assert summary[f"plasticity/{rank}/2"] == getattr(plasticity, rank)(NARROW)
    assert summary["plasticity/feature_norm/0"] == plasticity.feature_norm(WIDE)


def test_stacked_runs_give_what_each_run_gives_alone():
    generator = torch.Generator().manual_seed(0)
    activations = {
        "0": torch.randn(3, 10, 6, generator=generator).relu(),
        "2": torch.randn(3, 10, 4, generator=generator),
    }
    weights = {"0": torch.randn(3, 6, 2, generator=generator), "out": torch.randn(3, 1, 4, generator=generator)}
    activations["2"][1] = float("nan")  # one run has diverged
    together = plasticity.summarise(activations, weights)
    for run in range(3):
        alone = plasticity.summarise(
            {k: v[run] for k, v in activations.items()}, {k: v[run] for k, v in weights.items()}
        )
        assert alone.keys() == together.keys()
        for key, value in alone.items():
            torch.testing.assert_close(together[key][run], value, equal_nan=True, msg=key)


def test_no_layer_is_refused():
    with pytest.raises(ValueError, match="no hidden layer"):
        plasticity.summarise({})


def test_a_diagnostic_of_your_own_is_a_function_and_a_row(monkeypatch):
    from continual_agents.runs.overview import Glance
    from continual_agents.runs.tensorboard import overview

    row = Measure(
        "largest", lambda layer: layer.activations.amax((-2, -1)), "largest output", "largest", "of all units",
        shown=("chart",), chart="outputs", scaled="first",
    )  # fmt: skip
    monkeypatch.setitem(MEASURES, "largest", row)
    net = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU(), torch.nn.Linear(2, 1))
    with torch.no_grad():
        net[0].weight.copy_(torch.eye(2))
        net[0].bias.zero_()
    seen = Probe(net)(torch.tensor([[1.0, 2.0], [-5.0, 3.0]]))
    assert seen["plasticity/largest"] == seen["plasticity/largest/0"] == 3.0
    assert overview(["plasticity/largest"])["Plasticity at a glance"]["outputs"][1][0] == "^plasticity/largest$"
    assert Glance()({"plasticity/largest": 4.0})["glance/largest"] == 1.0
    with pytest.raises(ValueError, match="there is a measure 'largest' already"):
        plasticity.add_measure(row)


def test_the_page_lists_every_row():
    page = (Path(__file__).resolve().parents[2] / "docs/tensorboard.md").read_text()
    places = {"chart": "overview", "figure": "figures", "table": "table"}
    for row in MEASURES.values():
        assert f"| `{row.name}` | {row.meaning} | {', '.join(places[one] for one in row.shown)} |" in page
