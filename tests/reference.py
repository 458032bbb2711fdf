"""The slow, readable twin of continual backpropagation, the published rules written out, one number at a time.

A multi-layer perceptron on plain float64 tensors, gradients by autograd, optimizer and surgery in loops over units and
weights. Nothing here comes from continual_agents.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


class Twin:
    """Linear layers with an activation between; SGD or Adam; surgery after every step.

    weights[l] is [out, in], biases[l] is [out]; hidden layer l is made by weights[l] and read by weights[l + 1].
    """

    def __init__(self, weights, biases, activation, optimizer, utility, rate, maturity, decay, generator):
        self.weights = [w.detach().clone().requires_grad_() for w in weights]
        self.biases = [b.detach().clone().requires_grad_() for b in biases]
        self.activation, self.optimizer, self.utility = activation, optimizer, utility
        self.rate, self.maturity, self.decay, self.generator = rate, maturity, decay, generator
        widths = [len(b) for b in biases[:-1]]
        self.age = [[0] * n for n in widths]
        self.mean = [[0.0] * n for n in widths]
        self.worth = [[0.0] * n for n in widths]
        self.budget = [0.0] * len(widths)
        # per parameter tensor: first moment (or momentum), second moment, steps of each entry
        self.state = {id(p): [torch.zeros_like(p) for _ in range(3)] for p in [*self.weights, *self.biases]}

    def forward(self, x: Tensor) -> Tensor:
        self.hidden = []
        for w, b in zip(self.weights[:-1], self.biases[:-1], strict=True):
            x = self.activation(x @ w.T + b)
            x.retain_grad()
            self.hidden.append(x)
        return x @ self.weights[-1].T + self.biases[-1]

    def step(self, x: Tensor, target: Tensor) -> dict[int, list[int]]:
        parameters = [*self.weights, *self.biases]
        for p in parameters:
            p.grad = None
        (self.forward(x) - target).square().mean().backward()
        with torch.no_grad():
            for p in parameters:
                self._optimize(p)
            return self._surgery()

    def _optimize(self, p: Tensor) -> None:
        first, second, steps = self.state[id(p)]
        steps += 1
        settings = dict(self.optimizer)
        if settings.pop("kind") == "sgd":
            first.mul_(settings["momentum"]).add_(p.grad)
            p.sub_(settings["lr"] * first)
            return
        beta1, beta2 = settings["betas"]
        g = p.grad + settings.get("weight_decay", 0.0) * p
        first.mul_(beta1).add_((1 - beta1) * g)
        second.mul_(beta2).add_((1 - beta2) * g * g)
        largest = first / (1 - beta1**steps)
        p.sub_(settings["lr"] * largest / ((second / (1 - beta2**steps)).sqrt() + 1e-8))

    def _surgery(self) -> dict[int, list[int]]:
        going: dict[int, list[int]] = {}
        handed: dict[int, list[float]] = {}
        for layer, h in enumerate(self.hidden):
            out, incoming = self.weights[layer + 1].abs().sum(0), self.weights[layer].abs().sum(1)
            noise = (
                torch.rand(h.shape[1], generator=self.generator, dtype=h.dtype) if self.utility == "random" else None
            )
            for i in range(h.shape[1]):
                self.age[layer][i] += 1
                correction = 1 - self.decay ** self.age[layer][i]
                self.mean[layer][i] = self.decay * self.mean[layer][i] + (1 - self.decay) * h[:, i].mean().item()
                f_hat = self.mean[layer][i] / correction
                away = (h[:, i] - f_hat).abs().mean()
                y = worth(self.utility, h[:, i], away, h.grad[:, i], out[i], incoming[i], noise, i)
                y = y if math.isfinite(y) else 0.0
                self.worth[layer][i] = self.decay * self.worth[layer][i] + (1 - self.decay) * y
        for layer, ages in enumerate(self.age):
            eligible = [i for i, age in enumerate(ages) if age > self.maturity]
            self.budget[layer] = min(self.budget[layer] + self.rate * len(eligible), len(eligible))
            count = int(self.budget[layer])
            self.budget[layer] -= count
            if count:
                read = [self.worth[layer][i] / (1 - self.decay ** ages[i]) for i in range(len(ages))]
                going[layer] = sorted(eligible, key=lambda i, read=read: (read[i], i))[:count]
                handed[layer] = [self.mean[layer][i] / (1 - self.decay ** ages[i]) for i in going[layer]]
        for layer, units in going.items():
            for i, f_hat in zip(units, handed[layer], strict=True):
                self.biases[layer + 1].add_(f_hat * self.weights[layer + 1][:, i])
        for layer, units in going.items():
            w, b = self.weights[layer], self.biases[layer]
            bound = w.shape[1] ** -0.5
            rows = torch.empty(len(units), w.shape[1], dtype=w.dtype).uniform_(-bound, bound, generator=self.generator)
            for row, i in zip(rows, units, strict=True):
                w[i], b[i] = row, 0.0
        for layer, units in going.items():
            for i in units:
                self.weights[layer + 1][:, i] = 0.0
                for moment in self.state[id(self.weights[layer + 1])]:
                    moment[:, i] = 0.0
                for p in (self.weights[layer], self.biases[layer]):
                    for moment in self.state[id(p)]:
                        moment[i] = 0.0
                self.age[layer][i], self.mean[layer][i], self.worth[layer][i] = 0, 0.0, 0.0
        return going


def worth(name, h, away, gradient, out, incoming, noise, i) -> float:
    if name == "contribution":
        return (h.abs().mean() * out).item()
    if name == "mean_corrected_contribution":
        return (away * out).item()
    if name == "adaptable_contribution":
        return (away * out / incoming).item()
    if name == "weight":
        return out.item()
    if name == "adaptation":
        return (1 / incoming).item()
    if name == "random":
        return noise[i].item()
    assert name == "gradient"
    return (h * gradient).abs().mean().item()
