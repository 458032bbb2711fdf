"""Which dim of which tensor of a layer belongs to a unit: the table that all surgery reads, and `register`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


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
        refuse_reading: module -> reason why it can be edited where it makes units and not where it reads them, or None.
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
    refuse_reading: Callable[[Any], str | None] | None = None


def is_depthwise(module: nn.Module) -> bool:
    """Whether a convolution keeps channels apart: one filter for each, so that a unit goes through it whole."""
    return isinstance(module, CONVOLUTIONS) and 1 < module.groups == module.in_channels == module.out_channels


def _refuse_groups(module: Any) -> str | None:
    if module.groups == 1 or is_depthwise(module):
        return None
    # each unit that it makes has a row of the weight; what it reads sits elsewhere in the rows of every group
    return f"grouped convolution (groups={module.groups}), which reads each unit with a part of its rows"


def _conv(spatial: int) -> Axes:
    return Axes(
        out={"weight": 0, "bias": 0},
        inp={"weight": 1},
        bias={"weight": "bias"},
        axis=-1 - spatial,
        read_axis=-1 - spatial,
        refuse_reading=_refuse_groups,
    )


def _transposed(spatial: int) -> Axes:
    return Axes(
        out={"weight": 1, "bias": 0},
        inp={"weight": 0},
        bias={"weight": "bias"},
        axis=-1 - spatial,
        read_axis=-1 - spatial,
        bound=lambda m: float(m.weight[0].numel()) ** -0.5,  # PyTorch takes dim 1 of the weight for the fan-in here too
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
    return None


def _recurrent(gates: int) -> Callable[[Any], Axes]:
    def axes(module: Any) -> Axes:
        """Of a deep one: it reads with its first layer, and the units that anyone sees are the last layer's."""
        last = f"_l{module.num_layers - 1}"
        return Axes(
            out=dict.fromkeys((f"weight_ih{last}", f"weight_hh{last}", f"bias_ih{last}", f"bias_hh{last}"), 0),
            inp={"weight_ih_l0": 1},
            bias={"weight_ih_l0": "bias_ih_l0", f"weight_hh{last}": f"bias_hh{last}"},
            recurrent={f"weight_hh{last}": 1},
            gates=gates,
            bound=_recurrent_bound,
            refuse=_refuse_recurrent,
        )

    return axes


LAYERS: dict[type[nn.Module], Axes | Callable[[Any], Axes]] = {
    nn.Linear: Axes(out={"weight": 0, "bias": 0}, inp={"weight": 1}, bias={"weight": "bias"}),
    nn.Conv1d: _conv(1),
    nn.Conv2d: _conv(2),
    nn.Conv3d: _conv(3),
    nn.ConvTranspose1d: _transposed(1),
    nn.ConvTranspose2d: _transposed(2),
    nn.ConvTranspose3d: _transposed(3),
    nn.RNNCell: _cell(1),
    nn.GRUCell: _cell(3),
    nn.LSTMCell: _cell(4),
    nn.RNN: _recurrent(1),
    nn.GRU: _recurrent(3),
    nn.LSTM: _recurrent(4),
}


def axes_of(module: nn.Module) -> Axes | None:
    """The `Axes` of a layer by its class or the nearest registered base class; None if nobody registered it."""
    for kind in type(module).__mro__:
        if kind in LAYERS:
            entry = LAYERS[kind]
            return entry if isinstance(entry, Axes) else entry(module)
    return None


def matrix_of(module: nn.Module, names: Mapping[str, int]) -> tuple[Tensor, int]:
    """The first tensor with more than one dim that `out` or `inp` names, and its dim that counts units.

    Raises:
        ValueError: a tensor that the layer does not have, or none but vectors: what makes or reads units is a matrix.
    """
    for name, dim in names.items():
        if not hasattr(module, name):
            raise ValueError(f"register({type(module).__name__}): {name!r} is no tensor of the layer")
        tensor = getattr(module, name)
        if tensor is not None and tensor.ndim > 1:
            return tensor, dim
    raise ValueError(
        f"register({type(module).__name__}): {', '.join(names)} hold no matrix, so the layer makes and reads no units; "
        f"if it is a norm: surgery.register_norm({type(module).__name__}, {{'weight': 1.0}})"
    )


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
        out: tensor name -> dim that counts the units the layer makes; at least one is a matrix (a norm makes no units:
            `register_norm`). Vectors listed here are treated as biases. Empty: what it makes are no units.
        inp: tensor name -> dim that counts the units the layer reads. Empty: units that flow into it are left out.
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
