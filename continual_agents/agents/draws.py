"""Random numbers of a run: one stream for each purpose, and none that another seed has too."""

import enum

import numpy as np
import torch


class Draw(enum.IntEnum):
    """What a run draws; the numbers are part of what a seed means."""

    NETWORKS = 0
    LEARNER = 1
    OPERATIONS = 2
    ACTIONS = 3


def generator_of(seed: int, what: Draw) -> torch.Generator:
    """The generator of one purpose: seeded by the child `(what, 0)` of `numpy.random.SeedSequence(seed)`.

    Sums such as `1000 seed + what` meet again: the weights of seed 1 would be drawn from the numbers that the actions
    of seed 1001 come from.

    Args:
        seed: of the run, at least 0.
        what: the purpose.
    """
    # two words: a child of one word is the seed of a member (`member_seeds`)
    word = np.random.SeedSequence(seed, spawn_key=(int(what), 0)).generate_state(1)[0]
    return torch.Generator().manual_seed(int(word))


def member_seeds(seed: int, count: int) -> list[int]:
    """One seed for each member of a vector environment; members and runs of other seeds share none.

    Gymnasium's own `seed + member` gives member k of run s what member k - 1 of run s + 1 has. They are 32 bits wide,
    more than which many simulators do not take.
    """
    return [int(child.generate_state(1)[0]) for child in np.random.SeedSequence(seed).spawn(count)]
