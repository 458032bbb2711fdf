"""Sizes of weights, gradients, updates and features."""

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from .units import check_batch


def weight_magnitude(weights: Tensor | Iterable[Tensor], *, runs_dims: int = 0) -> Tensor:
    """Mean absolute value over all entries of one or more weight tensors (Nature 632:768, 2024, Methods).

    Args:
        weights: one tensor or several; every entry counts the same.
        runs_dims: number of leading dims that count independent runs of a stack.

    Returns:
        `[runs...]`; 0-dim for a single network.
    """
    tensors = [weights] if isinstance(weights, Tensor) else list(weights)
    return _total([w.abs() for w in tensors], runs_dims) / sum(math.prod(w.shape[runs_dims:]) for w in tensors)


def gradient_norm(parameters: Iterable[Tensor], *, runs_dims: int = 0) -> Tensor:
    """Euclidean norm of all gradients taken together, `sqrt(sum g^2)`; parameters without gradient count as 0.

    Args:
        parameters: tensors with `.grad`.
        runs_dims: leading dims that count runs.

    Raises:
        ValueError: no parameter has a gradient.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not gradients:
        raise ValueError("no parameter has a gradient: call gradient_norm between backward() and zero_grad()")
    return _total([g.square() for g in gradients], runs_dims).sqrt()


def update_norm(before: Sequence[Tensor], after: Sequence[Tensor], *, runs_dims: int = 0) -> Tensor:
    """Euclidean norm of the change of all parameters, `sqrt(sum (after - before)^2)`.

    Args:
        before: copies made before `optimizer.step()`.
        after: the parameters now, in the same order.
        runs_dims: leading dims that count runs.

    Raises:
        ValueError: the two differ in number or shape.
    """
    if [tensor.shape for tensor in before] != [tensor.shape for tensor in after]:
        raise ValueError("before and after hold tensors of different number or shape: give the same parameters twice")
    changes = [(new.detach() - old.detach()).square() for old, new in zip(before, after, strict=True)]
    return _total(changes, runs_dims).sqrt()


def feature_norm(activations: Tensor) -> Tensor:
    """Mean over the batch of the Euclidean norm of the feature vector (Lyle et al. 2022).

    Args:
        activations: `[..., batch, width]`.

    Returns:
        `[...]`.
    """
    check_batch(activations)
    return torch.linalg.vector_norm(activations, dim=-1).mean(-1)


def _total(tensors: Sequence[Tensor], runs_dims: int) -> Tensor:
    if not tensors:
        raise ValueError("no tensors given: nothing to measure")
    return torch.stack([tensor.detach().reshape(*tensor.shape[:runs_dims], -1).sum(-1) for tensor in tensors]).sum(0)
