"""Random generators as plain state, so that a checkpoint holds no pickled objects."""

from typing import Any

import numpy as np
import torch


def generator_state(generator: torch.Generator | np.random.Generator) -> dict[str, Any]:
    """State of a torch or NumPy generator as tensors, integers and strings (loads with `weights_only=True`)."""
    if isinstance(generator, torch.Generator):
        return {"kind": "torch", "state": generator.get_state()}
    if isinstance(generator, np.random.Generator):
        return {"kind": "numpy", "state": generator.bit_generator.state}
    raise TypeError(f"expected a torch.Generator or numpy.random.Generator, got {type(generator).__name__}")


def set_generator_state(generator: torch.Generator | np.random.Generator, state: dict[str, Any]) -> None:
    """Put a generator back where `generator_state` found it.

    Raises:
        ValueError: the state was taken from the other library's generator.
    """
    kind = "torch" if isinstance(generator, torch.Generator) else "numpy"
    if state.get("kind") != kind:
        raise ValueError(f"the state is of a {state.get('kind')!r} generator, this one is of {kind}")
    if isinstance(generator, torch.Generator):
        generator.set_state(state["state"])
    else:
        generator.bit_generator.state = state["state"]
