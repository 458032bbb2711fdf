"""The learner that a network asks for: a stack, or a loop over ordinary modules."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch

from .looped import LoopedLearner
from .networks import ConvNet, make_network
from .plans import Plan
from .stacked.learner import StackedLearner
from .stacked.operations import obstacle
from .streams.stream import Stream


def make_learner(
    plans: Sequence[Plan], stream: Stream, *, device: torch.device | str = "cpu", fast: bool = False
) -> StackedLearner | LoopedLearner:
    """The learner of one stack of plans; `fast` as in `StackedLearner` (a conv net is a loop over modules either way).

    Raises:
        ValueError: settings out of range, or plans that do not fit into one stack.
    """
    network = make_network(plans[0].network, stream.shape, stream.outputs)
    methods, seeds = [plan.method for plan in plans], [plan.seed for plan in plans]
    missing = obstacle(plans[0].method)
    if missing is not None and not isinstance(network, ConvNet):
        warnings.warn(f"{missing} has no form for stacks: {plans[0].method.name}'s runs train one by one", stacklevel=2)
    if isinstance(network, ConvNet) or missing is not None:
        return LoopedLearner(network, methods, seeds, loss=stream.loss, device=device)
    try:
        return StackedLearner(network, methods, seeds, loss=stream.loss, batch=stream.batch, device=device, fast=fast)
    except ValueError as error:
        told = str(error).startswith("method ")
        raise ValueError(str(error) if told else f"method {methods[0].name}: {error}") from error
