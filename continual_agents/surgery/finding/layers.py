"""Which dim of which tensor of a layer belongs to a unit: the table that all surgery reads, and `register`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn


@dataclass(frozen=True)
class Axes:
    """Where the units of a layer live in its tensors.

    Attributes:
        out: tensor name -> dim whose entries *make* the layer's units (rows of a Linear's weight, its bias).
        inp: tensor name -> dim whose entries *read* the units of the layer before (columns of a Linear's weight).
        bias: reading tensor name -> name of the bias that takes over the mean contribution of a removed unit.
        axis: dim of the layer's output tensor that counts units, negative (-1 for Linear, -3 for Conv2d).
        read_axis: dim of the layer's input tensor that counts the units read, negative.
        recurrent: reading tensors whose units are the layer's own (the recurrent matrix): name -> dim.
        gates: blocks of `width` entries along `out` dims (3 for a GRU, 4 for an LSTM).
        bound: module -> half width of PyTorch's own uniform initial distribution; None: 1 / sqrt(fan_in).
        refuse: module -> reason why this one cannot be edited, or None.
    """

    out: Mapping[str, int]
    inp: Mapping[str, int]
    bias: Mapping[str, str] = field(default_factory=dict)
    axis: int = -1
    read_axis: int = -1
    recurrent: Mapping[str, int] = field(default_factory=dict)
    gates: int = 1
    bound: Callable[[Any], float] | None = None
    refuse: Callable[[Any], str | None] | None = None


def _conv(spatial: int) -> Axes:
    return Axes(
        out={"weight": 0, "bias": 0},
        inp={"weight": 1},
        bias={"weight": "bias"},
        axis=-1 - spatial,
        read_axis=-1 - spatial,
        refuse=lambda m: f"grouped convolution (groups={m.groups})" if m.groups != 1 else None,
    )


def _recurrent_bound(module: Any) -> float:
    return float(module.hidden_size) ** -0.5


def _cell(gates: int) -> Axes:
    return Axes(
        out={"weight_ih": 0, "weight_hh": 0, "bias_ih": 0, "bias_hh": 0},
        inp={"weight_ih": 1},
        bias={"weight_ih": "bias_ih", "weight_hh": "bias_hh"},
        recurrent={"weight_hh": 1},
        gates=gates,
        bound=_recurrent_bound,
    )


def _refuse_recurrent(module: Any) -> str | None:
    if module.bidirectional:
        return "bidirectional recurrent layer"
    if getattr(module, "proj_size", 0):
        return f"LSTM with proj_size={module.proj_size}"
    if module.num_layers > 1:
        return f"recurrent layer with num_layers={module.num_layers} (inner layers are hidden; use one module each)"
    return None


def _recurrent(gates: int) -> Axes:
    return Axes(
        out={"weight_ih_l0": 0, "weight_hh_l0": 0, "bias_ih_l0": 0, "bias_hh_l0": 0},
        inp={"weight_ih_l0": 1},
        bias={"weight_ih_l0": "bias_ih_l0", "weight_hh_l0": "bias_hh_l0"},
        recurrent={"weight_hh_l0": 1},
        gates=gates,
        bound=_recurrent_bound,
        refuse=_refuse_recurrent,
    )


LAYERS: dict[type[nn.Module], Axes] = {
    nn.Linear: Axes(out={"weight": 0, "bias": 0}, inp={"weight": 1}, bias={"weight": "bias"}),
    nn.Conv1d: _conv(1),
    nn.Conv2d: _conv(2),
    nn.Conv3d: _conv(3),
    nn.RNNCell: _cell(1),
    nn.GRUCell: _cell(3),
    nn.LSTMCell: _cell(4),
    nn.RNN: _recurrent(1),
    nn.GRU: _recurrent(3),
    nn.LSTM: _recurrent(4),
}

# Per-unit tensors of a norm -> the value a newborn unit starts from.
NORM_VALUES: dict[str, float] = {"weight": 1.0, "bias": 0.0, "running_mean": 0.0, "running_var": 1.0}


def axes_of(module: nn.Module) -> Axes | None:
    """The `Axes` of a layer by its class or the nearest registered base class; None if nobody registered it."""
    for kind in type(module).__mro__:
        if kind in LAYERS:
            return LAYERS[kind]
    return None


def register(
    layer: type[nn.Module],
    *,
    out: Mapping[str, int],
    inp: Mapping[str, int],
    bias: Mapping[str, str] | None = None,
    axis: int = -1,
    read_axis: int = -1,
) -> None:
    """Teach surgery a layer of your own.

    Args:
        layer: the class; subclasses are covered too.
        out: tensor name -> dim that counts the units the layer makes. Vectors listed here are treated as biases.
        inp: tensor name -> dim that counts the units the layer reads.
        bias: reading tensor name -> bias that takes over a removed unit's mean contribution (weight @ mean).
            Left out: no bias takes it over.
        axis: dim of the output tensor that counts units, negative.
        read_axis: dim of the input tensor that counts the units read, negative.

    Raises:
        TypeError: `layer` is not a Module class, or a dim is not an int.
        ValueError: `out` and `inp` are empty, or an axis is not negative.

    Example:
        >>> class Gated(nn.Module):
        ...     def __init__(self, n_in: int, n_out: int) -> None:
        ...         super().__init__()
        ...         self.value = nn.Parameter(torch.randn(n_out, n_in))
        ...         self.gate = nn.Parameter(torch.randn(n_out, n_in))
        ...     def forward(self, x: Tensor) -> Tensor:
        ...         return (x @ self.value.T) * torch.sigmoid(x @ self.gate.T)
        >>> register(Gated, out={"value": 0, "gate": 0}, inp={"value": 1, "gate": 1})
    """
    if not (isinstance(layer, type) and issubclass(layer, nn.Module)):
        raise TypeError(f"register() wants a subclass of torch.nn.Module, got {layer!r}")
    if not out and not inp:
        raise ValueError(f"register({layer.__name__}): out and inp are both empty, so there is nothing to edit")
    for name, dim in {**out, **inp}.items():
        if not isinstance(dim, int):
            raise TypeError(f"register({layer.__name__}): the dim of {name!r} must be an int, got {dim!r}")
    if axis >= 0 or read_axis >= 0:
        raise ValueError(
            f"register({layer.__name__}): axis and read_axis count from the end, got {axis} and {read_axis}"
        )
    LAYERS[layer] = Axes(out=dict(out), inp=dict(inp), bias=dict(bias or {}), axis=axis, read_axis=read_axis)
