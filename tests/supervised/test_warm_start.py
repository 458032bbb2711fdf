"""Warm start: the split by hand, a run alone against the same run in the stack, the switch, and exact resume."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import functional

from continual_agents.runs import Run
from supervised.data.digits import load_digits
from supervised.draws import Draw, numpy_draws
from supervised.warm_start import WarmStart, split, train_warm_start

EXPERIMENT = {
    "starts": ["warm", "cold", "warm_shrink_and_perturb"],
    "seeds": 3,
    "data": {"test_images": 100, "train_images": 50, "first": 0.5},
    "epochs": {"first": 2, "second": 3},
    "batch": 16,
    "row_epochs": 1,
    "network": {"hidden": [8, 6], "activation": "relu"},
    "optimizer": {"kind": "sgd", "step_size": 0.1, "momentum": 0.5},
    "switch": {"shrink": 0.4, "noise": 0.01},
}


def finished(experiment: dict, seed: int) -> WarmStart:
    work = WarmStart(experiment, seed=seed)
    while work.epoch < work.epochs:
        work.step_epoch()
    return work


def test_half_is_the_beginning_of_the_whole_and_nothing_is_tested_that_was_trained_on() -> None:
    one = split(7, 1797, test=300, train=101, first=0.5)
    order = np.random.default_rng([7, 13]).permutation(1797)
    assert one.test.tolist() == order[:300].tolist()
    assert one.train.tolist() == order[300:401].tolist()
    assert one.first.tolist() == order[300:350].tolist()
    assert not set(one.test) & set(one.train)
    assert split(8, 1797, test=300, train=101, first=0.5).train.tolist() != one.train.tolist()


def test_a_run_of_the_stack_equals_the_run_alone() -> None:
    stack = finished(EXPERIMENT, 4)
    for number, (seed, start) in enumerate(stack.runs):
        alone = finished({**EXPERIMENT, "starts": [start], "seeds": 1}, seed)
        for ours, theirs in zip(stack.parameters, alone.parameters, strict=True):
            torch.testing.assert_close(ours[number], theirs[0], rtol=1e-4, atol=1e-6)


def test_a_warm_run_equals_an_ordinary_module_and_optimizer() -> None:
    work = finished({**EXPERIMENT, "starts": ["warm"], "seeds": 1}, 5)
    network, data, one = work.network.module(5), load_digits(), work.splits[0]
    images, labels = torch.from_numpy(data.images).flatten(1), torch.from_numpy(data.labels).long()
    for epoch in range(5):
        if epoch in (0, 2):  # the optimizer begins anew with the second phase
            optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.5)
        order = numpy_draws(5, Draw.ORDER, epoch).permutation(one.first if epoch < 2 else one.train)
        for batch in torch.from_numpy(order).split(16):
            optimizer.zero_grad()
            functional.cross_entropy(network(images[batch]), labels[batch]).backward()
            optimizer.step()
    for ours, theirs in zip(work.parameters, network.parameters(), strict=True):
        torch.testing.assert_close(ours[0], theirs.detach(), rtol=1e-4, atol=1e-6)
    right = network(images[one.test]).argmax(-1) == labels[one.test]
    assert work.row()["test_accuracy"][0] == pytest.approx(right.double().mean().item())


def test_at_the_switch_cold_begins_and_the_other_is_shrunk_and_perturbed(monkeypatch: pytest.MonkeyPatch) -> None:
    work = WarmStart(EXPERIMENT, seed=0)
    initial = [one.clone() for one in work.parameters]
    work.step_epoch()
    work.step_epoch()
    first = [one.clone() for one in work.parameters]
    assert np.isnan(work.row()["test_accuracy"]).tolist() == [False] * 3 + [True] * 3 + [False] * 3
    monkeypatch.setattr(work, "_learn", lambda x, y: None)
    work.step_epoch()
    for now, before, start in zip(work.parameters, first, initial, strict=True):
        warm, cold, shrunk = now.split(3)
        assert torch.equal(warm, before)
        assert torch.equal(cold, start)
        noise = (shrunk - 0.4 * before) / 0.01
        assert noise.abs().max() < 6
        assert not torch.equal(noise[0], noise[1])
        if noise.numel() > 500:
            assert noise.std().item() == pytest.approx(1, abs=0.1)


class StoppedError(Exception):
    """Stands for SIGKILL."""


@pytest.mark.parametrize("killed_after", [1, 2, 4])
def test_a_killed_run_continues_to_the_same_table(
    killed_after: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(folder: Path) -> WarmStart:
        work = WarmStart(EXPERIMENT, seed=0)
        with Run.open(folder, {"experiment": EXPERIMENT}, bar_position=None) as run:
            assert train_warm_start(work, run)
        return work

    whole = start(tmp_path / "whole")
    step_epoch = WarmStart.step_epoch

    def dying(self: WarmStart) -> None:
        if self.epoch == killed_after:
            raise StoppedError
        step_epoch(self)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "save_due", lambda self: True)
        patch.setattr(WarmStart, "step_epoch", dying)
        with pytest.raises(StoppedError):
            start(tmp_path / "parts")
    parts = start(tmp_path / "parts")
    assert (tmp_path / "parts/metrics.csv").read_text() == (tmp_path / "whole/metrics.csv").read_text()
    assert all(torch.equal(a, b) for a, b in zip(parts.parameters, whole.parameters, strict=True))
    assert pd.read_csv(tmp_path / "parts/runs.csv")["method"].tolist() == [s for _, s in whole.runs]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"starts": ["hot"]}, "experiment.starts: hot is unknown"),
        (
            {"data": {"test_images": 1000, "train_images": 900, "first": 0.5}},
            "train_images=900: there are 1797 images in all",
        ),
        ({"data": {"test_images": 10, "train_images": 10, "first": 0.01}}, "first=0.01"),
        ({"epochs": {"first": 0, "second": 1}}, "experiment.epochs"),
        ({"optimizer": {"kind": "adam", "step_size": 0.1, "momentum": 0.0}}, "kind=adam"),
        ({"optimizer": {"kind": "sgd", "step_size": 0.0, "momentum": 0.0}}, "step_size=0.0"),
        ({"seeds": 0}, "experiment.seeds"),
    ],
)
def test_settings_out_of_range(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WarmStart({**EXPERIMENT, **change}, seed=0)
