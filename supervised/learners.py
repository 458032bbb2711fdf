"""The learner that a network asks for: a stack, or a loop over ordinary modules."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch

from .incremental import IncrementalLearner
from .looped import LoopedLearner
from .networks import Mlp, make_network
from .plans import Plan
from .stacked.learner import StackedLearner
from .stacked.operations import obstacle
from .streams.incremental import ClassIncremental
from .streams.stream import Stream


def make_learner(
    plans: Sequence[Plan], stream: Stream, *, device: torch.device | str = "cpu", fast: bool = False
) -> StackedLearner | LoopedLearner:
    """The learner of one stack of plans; `fast` as in `StackedLearner` and `LoopedLearner` (for conv nets).

    Raises:
        ValueError: settings out of range, or plans that do not fit into one stack.
    """
    network = make_network(plans[0].network, stream.shape, stream.outputs)
    methods, seeds = [plan.method for plan in plans], [plan.seed for plan in plans]
    if isinstance(stream, ClassIncremental):
        return IncrementalLearner(
            network, methods, seeds, loss=stream.loss, seen=stream.seen(0), device=device, fast=fast
        )
    missing = obstacle(plans[0].method)
    if missing is not None and isinstance(network, Mlp):
        warnings.warn(f"{missing} has no form for stacks: {plans[0].method.name}'s runs train one by one", stacklevel=2)
    if not isinstance(network, Mlp) or missing is not None:
        return LoopedLearner(network, methods, seeds, loss=stream.loss, device=device, fast=fast)
    try:
        return StackedLearner(network, methods, seeds, loss=stream.loss, batch=stream.batch, device=device, fast=fast)
    except ValueError as error:
        told = str(error).startswith("method ")
        raise ValueError(str(error) if told else f"method {methods[0].name}: {error}") from error
