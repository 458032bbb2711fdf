"""The steps of a stack as native code: `native.c` compiled for one shape and one kind of method, with the machine's cc.

Runs are trained while their weights stay in the cache (wide networks: one at a time, vectors along the outputs; narrow
ones: as many side by side as a vector holds), for as many steps as the stream gives at once. Replacements stay outside,
as everywhere: when they are due is known beforehand.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from continual_agents.surgery.compiler import cc, compiled
from continual_agents.surgery.utility import UTILITIES

from ..networks import Mlp
from .continual_backprop import StackedContinualBackprop
from .network import StackedMlp
from .optimizers import StackedAdam, StackedOptimizer, StackedSgd
from .redo import StackedReDo

VECTORS = {"__AVX512F__": 64, "__AVX__": 32}
"""Bytes of a vector where the compiler defines these for this machine; 16 elsewhere (SSE, NEON)."""

NARROW = 16
"""Widest layer of a network whose runs are laid side by side."""

FLAGS = ("-O2", "-fpeel-loops", "-march=native", "-std=gnu11", "-fno-math-errno", "-fno-trapping-math")

SOURCE = Path(__file__).with_name("native.c")

ACTIVATIONS = {
    "relu": ("PICK((z) <= 0, 0, z)", "PICK((h) <= 0, 0, d)"),  # nan stays nan
    "tanh": ("tanh_(z)", "((d) * (1 - (h) * (h)))"),
    "sigmoid": ("sigmoid_(z)", "((d) * (h) * (1 - (h)))"),
    "leaky_relu": ("PICK((z) > 0, z, (REAL)0.01 * (z))", "PICK((z) > 0, d, (REAL)0.01 * (d))"),
    "elu": ("PICK((z) > 0, z, expm1_(z))", "PICK((z) > 0, d, (d) * ((h) + 1))"),
    "silu": ("((z) * sigmoid_(z))", "((d) * (sigmoid_(z) + (h) * (1 - sigmoid_(z))))"),
    "selu": (
        "(SELU_SCALE * PICK((z) > 0, z, SELU_ALPHA * expm1_(z)))",
        "PICK((z) > 0, SELU_SCALE * (d), (d) * ((h) + SELU_SCALE * SELU_ALPHA))",
    ),
    "linear": ("(z)", "(d)"),
}
"""Activation and derivative in C, by the names of `derivatives.py`."""

SCORES = {
    "contribution": "activity * out",
    "mean_corrected_contribution": "deviation * out",
    "adaptable_contribution": "deviation * out / incoming",
    "weight": "out",
    "adaptation": "1 / incoming",
    "gradient": "sensitivity",
}
"""Utilities in C, by the names of `continual_agents.surgery.UTILITIES`."""


def obstacle(network: Mlp, batch: int, operations: Mapping[str, Any], optimizer: StackedOptimizer) -> str | None:
    """Why the steps of such a stack cannot be native; None if they can.

    Args:
        network: its shape.
        batch: examples per step.
        operations: its operations by name; those that do nothing at most steps are no obstacle.
        optimizer: what trains it.
    """
    if type(optimizer) not in (StackedSgd, StackedAdam):
        return f"optimizer {type(optimizer).__name__}"
    if batch != 1:
        return f"batches of {batch}"
    if network.norm:
        return f"norm={network.norm}"
    if network.dropout:
        return "dropout"
    if network.activation not in ACTIVATIONS:
        return f"activation={network.activation}"
    followed = {name: operation for name, operation in operations.items() if operation.follows}
    if len(followed) > 1:
        return " with ".join(followed)
    for name, operation in followed.items():
        if not getattr(operation, "native", False):
            return name
        if isinstance(operation, StackedContinualBackprop) and _utility(operation) not in SCORES:
            return "a utility that draws or is a function"
    return None


class Native:
    """All steps of a chunk in one call, for every run of a stack; numbers agree with `one_by_one`'s to float rounding.

    A run gets the same bits whatever runs are trained beside it.

    Args:
        stack, optimizer: as `StackedLearner` has them; changed in place. Where layers are wide, their rows must lie
            in memory one after the other (`StackedMlp(..., rows=True)`).
        operations: at most one, of a kind that `obstacle` lets pass.
        loss: "cross_entropy" or "squared_error".

    Raises:
        CompilerError: no C compiler, or one that refuses.
    """

    def __init__(self, stack: StackedMlp, optimizer: StackedOptimizer, operations: Sequence[Any], *, loss: str):
        self.stack, self.optimizer, self.loss = stack, optimizer, loss
        self.operation = operations[0] if operations else None
        self.lanes = vector_bytes() // stack.dtype.itemsize if side_by_side(stack.network) else 1
        self._job = self._job_type(len(stack.layers), stack.dtype)
        source = "\n".join([*self._macros(), SOURCE.read_text(encoding="utf-8")])
        self._learn = compiled(source, FLAGS, f"supervised/stacked/{SOURCE.name}").learn
        self._learn.restype = ctypes.c_int
        self._pool = ThreadPoolExecutor(torch.get_num_threads())  # ctypes lets go of the interpreter's lock

    def __call__(self, x: Tensor, targets: Tensor, outputs: Tensor, first: int) -> None:
        """As `one_by_one`, without the step."""
        kept = [one.to(self.stack.dtype).contiguous() for one in (x, targets)]  # alive until the call is over
        job = self._job(steps=len(x), runs=self.stack.runs, first=0, last=self.stack.runs)
        job.x, job.targets, job.outputs = kept[0].data_ptr(), kept[1].data_ptr(), outputs.data_ptr()
        for number, layer in enumerate(self.stack.layers):
            job.weights[number] = layer.full.data_ptr()
            job.strides[number][:] = layer.full.stride()
            job.padded[number] = layer.full.shape[2]
        self._point_at_optimizer(job)
        self._point_at_operation(job)
        shares = self._shares(job)
        each = map if len(shares) == 1 else self._pool.map
        if any(each(self._learn, map(ctypes.byref, shares))):
            raise MemoryError(f"no memory for one run of {self.stack.network.shapes}")

    def _shares(self, job: Any) -> list[Any]:
        """The job as one for each of torch's threads; whole blocks of runs each."""
        blocks = -(-self.stack.runs // self.lanes)
        threads = min(torch.get_num_threads(), blocks)
        shares = []
        for number in range(threads):
            share = self._job.from_buffer_copy(job)
            share.first = blocks * number // threads * self.lanes
            share.last = min(blocks * (number + 1) // threads * self.lanes, self.stack.runs)
            shares.append(share)
        return shares

    def _point_at_optimizer(self, job: Any) -> None:
        optimizer = self.optimizer
        job.descent, job.weight_decay = optimizer.descent.data_ptr(), optimizer.weight_decay.data_ptr()
        if isinstance(optimizer, StackedSgd):
            job.shrink, job.momentum = optimizer.shrink.data_ptr(), optimizer.momentum.data_ptr()
            for number, buffer in enumerate(optimizer.buffers):
                job.first_moments[number] = buffer.data_ptr()
        elif isinstance(optimizer, StackedAdam):
            job.shrink = optimizer.descent.data_ptr()  # not read
            job.beta1, job.beta2, job.eps = optimizer.betas[0], optimizer.betas[1], optimizer.eps
            for number in range(len(self.stack.layers)):
                job.first_moments[number] = optimizer.first[number].data_ptr()
                job.second_moments[number] = optimizer.second[number].data_ptr()
                for which in (0, 1):
                    job.rows[number][which] = optimizer.rows[number][which].data_ptr()
                    job.columns[number][which] = optimizer.columns[number][which].data_ptr()

    def _point_at_operation(self, job: Any) -> None:
        operation = self.operation
        if isinstance(operation, StackedContinualBackprop):
            job.decay = operation.decay
            for number in range(len(operation.worth)):
                job.worth[number] = operation.worth[number].data_ptr()
                job.mean[number] = operation.means[number].data_ptr()
                job.seen[number] = operation.weights[number].data_ptr()
        elif isinstance(operation, StackedReDo):
            for number, (activity, mean) in enumerate(zip(operation.activity, operation.means, strict=True)):
                job.worth[number], job.mean[number] = activity.data_ptr(), mean.data_ptr()

    @staticmethod
    def _job_type(depth: int, dtype: torch.dtype) -> Any:
        """`Job` of native.c."""
        whole, address = ctypes.c_int64, ctypes.c_void_p
        real = ctypes.c_float if dtype == torch.float32 else ctypes.c_double
        fields: list[tuple[str, Any]] = [(name, whole) for name in ("steps", "runs", "first", "last")]
        fields += [(name, address) for name in ("x", "targets", "outputs")]
        fields += [(name, address * depth) for name in ("weights", "first_moments", "second_moments")]
        fields += [("strides", whole * 3 * depth), ("padded", whole * depth)]
        fields += [(name, address * 2 * depth) for name in ("rows", "columns")]
        fields += [(name, address * depth) for name in ("worth", "mean", "seen")]
        fields += [(name, address) for name in ("descent", "shrink", "weight_decay", "momentum")]
        fields += [(name, real) for name in ("decay", "beta1", "beta2", "eps")]
        return type("Job", (ctypes.Structure,), {"_fields_": fields})

    def _macros(self) -> list[str]:
        """The shape and the method, as native.c wants them."""
        network, optimizer, operation = self.stack.network, self.optimizer, self.operation
        pitches = [layer.outputs if self.lanes > 1 else layer.outputs + layer.extra for layer in self.stack.layers]
        layers = [f"F({k}, {i}, {o}, {p})" for k, ((i, o), p) in enumerate(zip(network.shapes, pitches, strict=True))]
        activation, derivative = ACTIVATIONS[network.activation]
        adam = isinstance(optimizer, StackedAdam)
        utility = _utility(operation) if isinstance(operation, StackedContinualBackprop) else None
        needs = UTILITIES[utility].needs if utility is not None else ()
        values = {
            "REAL": "float" if self.stack.dtype == torch.float32 else "double",
            "VECTOR": vector_bytes(),
            "LANES": self.lanes,
            "DEPTH": len(layers),
            "LAYERS(F)": " ".join(layers),
            "LAYERS_BACK(F)": " ".join(reversed(layers)),
            "WIDEST": max(network.inputs, *pitches, *network.hidden, network.outputs),
            "INPUTS": network.inputs,
            "OUTPUTS": network.outputs,
            "CROSS_ENTROPY": int(self.loss == "cross_entropy"),
            "SELU_SCALE": "((REAL)1.0507009873554805)",
            "SELU_ALPHA": "((REAL)1.6732632423543772)",
            "ACT(z)": activation,
            "DACT(d, z, h)": derivative,
            "SILENT": int(network.activation == "relu"),
            "DECAYS": int(optimizer.decays),
            "MOMENTUM": int(isinstance(optimizer, StackedSgd) and bool(optimizer.buffers)),
            "ADAM": int(adam),
            "PER_UNIT": int(adam and optimizer.per_unit),
            "FOLLOWS": 0 if operation is None else 1 if utility is not None else 2,
            "SCORE": SCORES[utility] if utility is not None else "all(0)",
            "SUMS": int("out" in needs or "incoming" in needs),
        }
        return [f"#define {name} {value}" for name, value in values.items()]


def side_by_side(network: Mlp) -> bool:
    """Whether runs of such networks are laid side by side in vectors; else vectors run along the outputs."""
    return max((*network.hidden, network.outputs)) <= NARROW


@functools.lru_cache(maxsize=1)
def vector_bytes() -> int:
    """Bytes of this machine's vectors, as the compiler knows them.

    Raises:
        CompilerError: no C compiler.
    """
    macros = cc("-march=native", "-dM", "-E", "-x", "c", "-", source="")
    return next((size for name, size in VECTORS.items() if f"#define {name} " in macros), 16)


def _utility(operation: StackedContinualBackprop) -> str | None:
    return next((name for name, utility in UTILITIES.items() if utility is operation.utility), None)
