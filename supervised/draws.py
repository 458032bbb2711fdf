"""Random numbers by name: every draw of a run follows from its seed and from what is drawn, never from what ran before.

A stream or a stack that stops anywhere continues with the same numbers, and a run draws the same alone or in a stack.
"""

import enum

import numpy as np
import torch


class Draw(enum.IntEnum):
    """What is drawn; the second word of every key."""

    WEIGHTS = 0
    TARGET = 1
    FLIPS = 2
    EXAMPLES = 3
    PERMUTATION = 4
    ORDER = 5
    PAIRS = 6
    EVALUATION = 8
    NEWBORN = 9
    UTILITY = 10
    NOISE = 11
    DROPOUT = 12
    SPLIT = 13
    CLASSES = 14
    AUGMENTATION = 15
    HEAD = 16


def numpy_draws(seed: int, what: Draw, *key: int) -> np.random.Generator:
    """NumPy generator of one run for one purpose.

    Args:
        seed: of the run, at least 0.
        what: the purpose.
        key: which one of them (task, layer, block), integers of at least 0.
    """
    return np.random.default_rng([seed, int(what), *key])


def torch_draws(seed: int, what: Draw, *key: int) -> torch.Generator:
    """The same as a torch generator on the CPU; numbers go to the device afterwards, so every device sees the same."""
    word = np.random.SeedSequence([seed, int(what), *key]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(word >> np.uint64(1)))
