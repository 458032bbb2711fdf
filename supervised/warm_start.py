"""Warm start (Ash and Adams 2020): half of the data first and then all of it, against all of it from scratch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from continual_agents.networks import activation_of
from continual_agents.runs import Run
from continual_agents.settings import check_types, nearest

from .data.digits import CLASSES, SIDE, load_digits
from .draws import Draw, numpy_draws, torch_draws
from .networks import Mlp

STARTS = ("warm", "cold", "warm_shrink_and_perturb")
"""How the second phase may begin."""

TYPES: dict[str, Any] = {
    "starts": Sequence[str],
    "seeds": int,
    "batch": int,
    "row_epochs": int,
    **dict.fromkeys(("data", "epochs", "network", "optimizer", "switch"), Mapping[str, Any]),
}
GROUPS: dict[str, dict[str, Any]] = {
    "data": {"test_images": int, "train_images": int, "first": float},
    "epochs": {"first": int, "second": int},
    "network": {"hidden": Sequence[int], "activation": str},
    "optimizer": {"kind": str, "step_size": float, "momentum": float},
    "switch": {"shrink": float, "noise": float},
}
"""What the experiment's settings hold."""


class Split(NamedTuple):
    """Indices of one seed's images.

    Attributes:
        first: those that a warm start is trained on first, the beginning of `train`.
        train: all that the second phase trains on.
        test: held out.
    """

    first: np.ndarray
    train: np.ndarray
    test: np.ndarray


def split(seed: int, images: int, *, test: int, train: int, first: float) -> Split:
    """A random split of `images` images.

    Args:
        seed: of the run.
        images: how many there are.
        test: how many are held out.
        train: how many of the others are trained on.
        first: fraction of `train` that comes first, rounded down.
    """
    order = numpy_draws(seed, Draw.SPLIT).permutation(images)
    chosen = order[test : test + train]
    return Split(chosen[: int(first * train)], chosen, order[:test])


class WarmStart:
    """Every seed and start as one stacked network, in two phases.

    In the first phase only one network per seed is trained: the two warm starts are the same until the switch, and the
    cold one does not exist yet. The optimizer begins anew with the second phase.

    Args:
        experiment: `starts`, `seeds`, `data`, `epochs`, `batch`, `row_epochs`, `network`, `optimizer`, `switch` as in
            configs/experiment/warm_start.yaml.
        seed: of the first run; the others follow.
        device: where everything lives.

    Attributes:
        epochs: of both phases together.
        runs: `(seed, start)` of every run, starts outermost.

    Raises:
        ValueError: a setting out of range, naming it.
    """

    def __init__(self, experiment: Mapping[str, Any], *, seed: int, device: torch.device | str = "cpu"):
        check_types("experiment", experiment, TYPES)
        for group, kinds in GROUPS.items():
            check_types(f"experiment.{group}", experiment[group], kinds)
        self.experiment, self.device = experiment, torch.device(device)
        self.seeds = list(range(seed, seed + experiment["seeds"]))
        data = load_digits()
        self._check(len(data.labels))
        self.images = torch.from_numpy(data.images).flatten(1).to(self.device)
        self.labels = torch.from_numpy(data.labels).long().to(self.device)
        network = experiment["network"]
        self.network = Mlp(
            inputs=SIDE**2, outputs=CLASSES, hidden=tuple(network["hidden"]), activation=network["activation"]
        )
        self.first_epochs: int = experiment["epochs"]["first"]
        self.epochs: int = self.first_epochs + experiment["epochs"]["second"]
        starts: Sequence[str] = experiment["starts"]
        self.runs = [(number, start) for start in starts for number in self.seeds]
        counts = experiment["data"]
        self.splits = [
            split(k, len(data.labels), test=counts["test_images"], train=counts["train_images"], first=counts["first"])
            for k in self.seeds
        ]
        self.epoch = 0
        self.parameters = self._fresh()
        self.velocities = [torch.zeros_like(one) for one in self.parameters]

    def _check(self, images: int) -> None:
        experiment = self.experiment
        data, optimizer = experiment["data"], experiment["optimizer"]
        if unknown := [start for start in experiment["starts"] if start not in STARTS]:
            raise ValueError(f"experiment.starts: {unknown[0]} is unknown{nearest(unknown[0], STARTS)}")
        if not experiment["starts"]:
            raise ValueError(f"experiment.starts=[]: give at least one of {', '.join(STARTS)}")
        counts = {key: experiment[key] for key in ("seeds", "batch", "row_epochs")}
        counts |= {f"data.{key}": data[key] for key in ("test_images", "train_images")}
        counts |= {f"epochs.{key}": experiment["epochs"][key] for key in ("first", "second")}
        for name, count in counts.items():
            if count < 1:
                raise ValueError(f"experiment.{name}={count}: at least 1")
        if data["test_images"] + data["train_images"] > images:
            given = f"experiment.data.test_images={data['test_images']} and train_images={data['train_images']}"
            raise ValueError(f"{given}: there are {images} images in all")
        if not 1 <= int(data["first"] * data["train_images"]) <= data["train_images"]:
            raise ValueError(f"experiment.data.first={data['first']}: a fraction that leaves an image, at most 1")
        if optimizer["kind"] != "sgd":
            raise ValueError(f"experiment.optimizer.kind={optimizer['kind']}: warm start knows sgd only")
        if optimizer["step_size"] <= 0:
            raise ValueError(f"experiment.optimizer.step_size={optimizer['step_size']}: must be positive")
        if not 0 <= optimizer["momentum"] < 1:
            raise ValueError(f"experiment.optimizer.momentum={optimizer['momentum']}: lies in [0, 1)")
        if not 0 <= experiment["switch"]["shrink"] <= 1:
            raise ValueError(f"experiment.switch.shrink={experiment['switch']['shrink']}: a factor in [0, 1]")
        if not experiment["switch"]["noise"] >= 0:
            raise ValueError(f"experiment.switch.noise={experiment['switch']['noise']}: must not be negative")

    def step_epoch(self) -> None:
        """Train for one epoch; the switch comes before the first epoch of the second phase."""
        if self.epoch == self.first_epochs:
            self._switch()
        second = self.epoch >= self.first_epochs
        orders = []
        for seed, one in zip(self.seeds, self.splits, strict=True):
            chosen = one.train if second else one.first
            orders.append(numpy_draws(seed, Draw.ORDER, self.epoch).permutation(chosen))
        copies = len(self.experiment["starts"]) if second else 1
        order = torch.from_numpy(np.tile(np.stack(orders), (copies, 1))).to(self.device)
        for batch in order.split(self.experiment["batch"], dim=1):
            self._learn(self.images[batch], self.labels[batch])
        self.epoch += 1

    def row(self) -> dict[str, np.ndarray]:
        """Accuracies of every run; nan for the cold ones before they begin."""
        second = self.epoch > self.first_epochs
        row = {"epoch": np.full(len(self.runs), float(self.epoch))}
        for name, chosen in (
            ("test_accuracy", [one.test for one in self.splits]),
            ("train_accuracy", [one.train if second else one.first for one in self.splits]),
        ):
            index = torch.from_numpy(np.stack(chosen)).to(self.device)
            if second:
                row[name] = self._accuracy(index.repeat(len(self.experiment["starts"]), 1))
            else:
                known = self._accuracy(index)
                blank = np.full(len(self.seeds), np.nan)
                row[name] = np.concatenate([blank if s == "cold" else known for s in self.experiment["starts"]])
        return row

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to continue exactly."""
        return {"epoch": self.epoch, "parameters": self.parameters, "velocities": self.velocities}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict()`."""
        self.epoch = state["epoch"]
        self.parameters = [one.to(self.device) for one in state["parameters"]]
        self.velocities = [one.to(self.device) for one in state["velocities"]]

    def logits(self, x: Tensor, parameters: Sequence[Tensor]) -> Tensor:
        """Outputs `[runs, batch, 10]` for inputs `[runs, batch, 64]`."""
        activation = activation_of(self.network.activation).module()
        weights, biases = parameters[::2], parameters[1::2]
        for number, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
            x = torch.baddbmm(bias.unsqueeze(1), x, weight.mT)
            if number < len(weights) - 1:
                x = activation(x)
        return x

    def _fresh(self) -> list[Tensor]:
        """Initial parameters, a network per seed: weight and bias of each layer in turn."""
        parameters = []
        for layer in zip(*(self.network.initial(seed) for seed in self.seeds), strict=True):
            weight = torch.stack(layer).to(self.device)
            parameters += [weight, weight.new_zeros(weight.shape[:2])]
        return parameters

    def _switch(self) -> None:
        """From one network per seed to one per seed and start."""
        starts = {"warm": self.parameters, "cold": self._fresh(), "warm_shrink_and_perturb": self._shrunk()}
        chosen = [starts[start] for start in self.experiment["starts"]]
        self.parameters = [torch.cat(layer) for layer in zip(*chosen, strict=True)]
        self.velocities = [torch.zeros_like(one) for one in self.parameters]

    def _shrunk(self) -> list[Tensor]:
        shrink, noise = (self.experiment["switch"][key] for key in ("shrink", "noise"))
        generators = [torch_draws(seed, Draw.NOISE) for seed in self.seeds]
        shrunk = []
        for one in self.parameters:
            draws = torch.stack([torch.randn(one.shape[1:], generator=generator) for generator in generators])
            shrunk.append(shrink * one + noise * draws.to(self.device))
        return shrunk

    def _learn(self, x: Tensor, y: Tensor) -> None:
        """One step of SGD on the mean cross-entropy of each run's batch."""
        leaves = [one.detach().requires_grad_() for one in self.parameters]
        losses = functional.cross_entropy(self.logits(x, leaves).flatten(0, 1), y.flatten(), reduction="sum")
        gradients = torch.autograd.grad(losses / y.shape[1], leaves)
        step_size, momentum = (self.experiment["optimizer"][key] for key in ("step_size", "momentum"))
        with torch.no_grad():
            for parameter, velocity, gradient in zip(self.parameters, self.velocities, gradients, strict=True):
                velocity.mul_(momentum).add_(gradient)
                parameter.sub_(velocity, alpha=step_size)

    @torch.no_grad()
    def _accuracy(self, index: Tensor) -> np.ndarray:
        right = self.logits(self.images[index], self.parameters).argmax(-1) == self.labels[index]
        accuracy: np.ndarray = right.double().mean(1).cpu().numpy()
        return accuracy


def train_warm_start(work: WarmStart, run: Run) -> bool:
    """Train to the end from where the run folder left off; a row of metrics.csv per run and `row_epochs`.

    Returns:
        True if the run is finished, False if it was asked to stop and can be continued.

    Raises:
        FloatingPointError: the weights of a run are no longer finite.
    """
    starts = [start for _, start in work.runs]
    if run.state is not None:
        with run.continuing():
            work.load_state_dict(run.state)
    else:
        run.table("runs").extend(
            {"run": list(range(len(starts))), "seed": [seed for seed, _ in work.runs], "method": starts}
        )
    row: dict[str, np.ndarray] = {}
    with run.progress(total=work.epochs, initial=work.epoch, unit="epochs") as bar:
        while work.epoch < work.epochs:
            work.step_epoch()
            for number, one in enumerate(work.parameters):
                if not bool(one.isfinite().all()):
                    raise FloatingPointError(
                        f"not finite in epoch {work.epoch}: layer_{number // 2}. Lower experiment.optimizer.step_size. "
                        f"The last good checkpoint of {run.folder}: {run.last_checkpoint}"
                    )
            if work.epoch % work.experiment["row_epochs"] == 0 or work.epoch in (work.first_epochs, work.epochs):
                row = work.row()
                run.log_runs(work.epoch, row, groups=starts)
            bar.update(1)
            if work.epoch < work.epochs and (run.stop_requested or run.save_due()):
                run.save(work.epoch, work.state_dict())
                if run.stop_requested:
                    return False
    run.finish(work.epochs, work.state_dict(), {key: float(values.mean()) for key, values in row.items()})
    return True
