"""Warm start as a stream with methods: every run of the stacks against an ordinary module, and the one command."""

from pathlib import Path

import pandas as pd
import pytest
import torch
from torch.nn import functional

from continual_agents.methods import Method
from continual_agents.runs import Run
from supervised import make_learner, make_plans
from supervised.draws import Draw, torch_draws
from supervised.networks import Mlp
from supervised.streams.table import make_stream
from tools.command_line import compose_config, plain_config
from tools.stream import StreamJob

SGD = {"kind": "sgd", "step_size": 0.1}
METHODS = {
    "backprop": {},
    "fresh": {"reset": {"layers": "all"}},
    "task_shrink_and_perturb": {"perturb": {"shrink": 0.4, "noise": 0.01, "at_task": True}},
}
EXPERIMENT = {
    "stream": {"kind": "growing", "test_images": 100, "train_images": 48, "epochs": 3, "batch": 8},
    "network": {"hidden": [8, 6], "activation": "tanh"},
    "seeds": 2,
}


@torch.no_grad()
def switch(name: str, module: torch.nn.Module, network: Mlp, seed: int) -> torch.nn.Module:
    """What a run goes on with in the second task."""
    if name == "fresh":
        return network.module(seed, start=1)
    if name == "task_shrink_and_perturb":
        linears = [layer for layer in module if isinstance(layer, torch.nn.Linear)]
        sizes = [layer.weight.numel() + layer.bias.numel() for layer in linears]
        draws = torch.randn(8192 // sum(sizes), sum(sizes), generator=torch_draws(seed, Draw.NOISE, 0))[0].split(sizes)
        for layer, draw in zip(linears, draws, strict=True):
            noise = draw.view(layer.in_features + 1, layer.out_features)  # a stack's rows: inputs, then the bias
            layer.weight.mul_(0.4).add_(noise[:-1].T, alpha=0.01)
            layer.bias.mul_(0.4).add_(noise[-1], alpha=0.01)
    return module


@pytest.mark.parametrize("name", METHODS)
def test_a_run_of_the_stack_equals_an_ordinary_module_and_optimizer(name: str) -> None:
    method = Method(name=name, optimizer=SGD, operations=METHODS[name])
    plans = make_plans(EXPERIMENT, {name: method}, seed=4)
    stream = make_stream(plans[0].stream, [4, 5])
    learner = make_learner(plans, stream)
    x, y = [], []
    for task in range(2):
        learner.start_task(task)
        for _ in range(18):
            inputs, classes = stream.next(1)
            learner.learn(inputs, classes)
            x.append(inputs[0])
            y.append(classes[0])
    network = learner.network
    for number, seed in enumerate((4, 5)):
        module = network.module(seed)
        for step in range(36):
            if step == 18:
                module = switch(name, module, network, seed)
            loss = functional.cross_entropy(module(x[step][number]), y[step][number])
            gradients = torch.autograd.grad(loss, list(module.parameters()))
            with torch.no_grad():
                for parameter, gradient in zip(module.parameters(), gradients, strict=True):
                    parameter.sub_(gradient, alpha=0.1)
        inputs, _ = stream.test()
        outputs, _ = learner.evaluate(inputs)
        torch.testing.assert_close(outputs[number], module(inputs[number]).detach(), rtol=1e-4, atol=1e-5)


def test_the_experiment_measures_held_out_images_in_both_tasks(tmp_path: Path) -> None:
    settings = plain_config(compose_config(["experiment=warm_start", "scale=smoke"]))
    with Run.open(tmp_path, settings, bar_position=None) as run:
        StreamJob(settings).run(run)
    runs = pd.read_csv(tmp_path / "runs.csv")
    assert runs.groupby("method").size().to_dict() == {"backprop": 2, "fresh": 2, "task_shrink_and_perturb": 2}
    rows = pd.read_csv(tmp_path / "metrics.csv")
    assert rows["step"].unique().tolist() == [6, 12, 18, 24, 30, 36, 42, 48]
    assert rows.groupby("task/index").size().to_dict() == {0.0: 24, 1.0: 24}
    assert rows["test_accuracy"].between(0, 1).all()


def test_the_published_demonstration_sees_half_as_long_as_all() -> None:
    experiment = plain_config(compose_config(["experiment=warm_start"]))["experiment"]
    stream = make_stream(experiment["stream"], [0])
    assert stream.task_steps == 5_000  # 200 epochs of 100 images, 100 epochs of 200, in batches of 4
    assert experiment["tasks"] == 2
