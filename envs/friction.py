"""Friction schedules: which friction the ground has at which environment step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LARGEST = 10.0
"""Bullet caps the product of the two bodies' frictions here."""


def check_friction(value: float, name: str = "friction") -> float:
    """The value as a float, if Bullet can apply it.

    Raises:
        TypeError: not a number.
        ValueError: not in (0, 10].
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{name} must be a number in (0, {LARGEST:g}], got {value!r}")
    if not 0 < value <= LARGEST:
        raise ValueError(f"{name} must be in (0, {LARGEST:g}], got {value!r}: Bullet caps the product at {LARGEST:g}")
    return float(value)


def _check_whole(name: str, value: int | None, *, least: int) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name} must be a whole number or None, got {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least} (or None), got {value}")


@dataclass(frozen=True, kw_only=True)
class FrictionSchedule:
    """Friction between ground and robot as a function of the environment step.

    Time is cut into segments of `change_every` environment steps; segment k is task k and has one friction: the k-th
    of `values`, or, without values, a draw from the log-uniform distribution on [`low`, `high`] with the generator
    `numpy.random.default_rng([seed, k])`, so that any segment can be had without the ones before it.

    Args:
        change_every: Environment steps per segment, at least 1; None: never change.
        low: Least friction drawn, effective coefficient, > 0. The Slippery Ant of the literature: 0.02.
        high: Greatest friction drawn, effective coefficient, <= 10. The Slippery Ant of the literature: 2.
        values: Frictions to go through in order instead of drawing any.
        cycle: After the last value begin again; otherwise the last value stays.
        at_episode_end: Change at the first episode end at or after the boundary, as published; False: at the boundary
            itself, in the middle of the episode.
        seed: Seed of the draws; None: the seed the environment was reset with.

    Raises:
        ValueError: an argument is out of range.

    Example:
        >>> FrictionSchedule(change_every=1000, values=(0.02, 2.0)).friction(3)
        2.0
    """

    change_every: int | None = 2_000_000
    low: float = 0.02
    high: float = 2.0
    values: Sequence[float] | None = None
    cycle: bool = True
    at_episode_end: bool = True
    seed: int | None = None

    def __post_init__(self) -> None:
        _check_whole("change_every", self.change_every, least=1)
        _check_whole("seed", self.seed, least=0)
        check_friction(self.low, "low")
        check_friction(self.high, "high")
        if self.low > self.high:
            raise ValueError(f"low must not exceed high, got low={self.low} > high={self.high}: swap them")
        if self.values is not None:
            if len(self.values) == 0:
                raise ValueError("values is empty: give at least one friction, or None to draw them")
            checked = tuple(check_friction(value, f"values[{k}]") for k, value in enumerate(self.values))
            object.__setattr__(self, "values", checked)

    @classmethod
    def constant(cls, friction: float) -> FrictionSchedule:
        """One friction for ever."""
        return cls(change_every=None, values=(check_friction(friction),))

    def segment(self, step: int) -> int:
        """Index of the segment, that is of the task, that environment step `step` falls in."""
        return 0 if self.change_every is None else step // self.change_every

    def friction(self, segment: int, seed: int = 0) -> float:
        """Effective friction of a segment; `seed` counts where the schedule has none of its own."""
        if self.values is not None:
            last = len(self.values) - 1
            return self.values[segment % (last + 1) if self.cycle else min(segment, last)]
        generator = np.random.default_rng([seed if self.seed is None else self.seed, segment])
        return float(math.exp(generator.uniform(math.log(self.low), math.log(self.high))))


SLIPPERY = FrictionSchedule()
"""The Slippery Ant of the literature: log-uniform on [0.02, 2], a change every 2 million steps."""
