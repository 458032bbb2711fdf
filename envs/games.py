"""MinAtar's games one after the other (Young and Tian 2019): small Atari games of 10 x 10 cells, for a CPU."""

import importlib
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete

GAMES = ("asterix", "breakout", "freeway", "seaquest", "space_invaders")
CHANNELS = 10
"""Of the game that has most (seaquest); the others leave the last ones empty."""


class MinAtar(gymnasium.Env[np.ndarray, Any]):
    """Plays a list of games in turn; a task is a game, and the list begins again at its end.

    | observation | uint8 [10, 10, 10]: row, column, channel; 1 where a thing of the channel's kind is               |
    |-------------|--------------------------------------------------------------------------------------------------|
    | action      | 0 nothing, 1 left, 2 up, 3 right, 4 down, 5 fire, in every game                                    |
    | reward      | the game's points                                                                                  |
    | end         | the game's; there is no time limit, which `freeway` has by itself                                  |

    What a channel means differs from game to game. A task lasts `change_every` environment steps and ends with the
    first episode that ends after them. The k-th task draws from `numpy.random.SeedSequence([seed, k])`: every method on
    the same seed meets the same tasks.

    Args:
        games: names of `GAMES`, in order.
        change_every: environment steps per task, at least 1.
        sticky_action_prob: probability that the last action is repeated instead, in [0, 1]; as published .1.
        difficulty_ramping: whether games become harder as they go on.

    Raises:
        ImportError: the package minatar is not installed.
        ValueError: an argument out of range.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012

    def __init__(
        self,
        *,
        games: Sequence[str] = ("space_invaders", "asterix", "seaquest"),
        change_every: int = 2_000_000,
        sticky_action_prob: float = 0.1,
        difficulty_ramping: bool = True,
    ):
        for name in games:
            if name not in GAMES:
                raise ValueError(f"changing.games={list(games)}: {name!r} is none of {', '.join(GAMES)}")
        if not games:
            raise ValueError("changing.games=[]: at least one game is needed")
        if isinstance(change_every, bool) or not isinstance(change_every, int | np.integer) or change_every < 1:
            raise ValueError(f"changing.change_every={change_every!r}: a whole number of at least 1 is needed")
        if not 0 <= sticky_action_prob <= 1:
            raise ValueError(f"changing.sticky_action_prob={sticky_action_prob}: a probability in [0, 1]")
        try:
            importlib.import_module("minatar")
            self._makers = [importlib.import_module(f"minatar.environments.{name}").Env for name in games]
        except ModuleNotFoundError as error:
            raise ImportError(
                "MinAtar-v0 needs the package minatar: pip install --constraint constraints.txt -e '.[minatar]'"
            ) from error
        self.games, self.change_every = tuple(games), int(change_every)
        self.sticky_action_prob, self.difficulty_ramping = sticky_action_prob, difficulty_ramping
        self.observation_space = Box(0, 1, (10, 10, CHANNELS), np.uint8)
        self.action_space = Discrete(6)
        self.steps, self._task = 0, 0
        self._life: int | None = None
        self._begin_task()

    @property
    def task(self) -> int:
        """Index of the task in force."""
        return self._task

    @property
    def game(self) -> str:
        """Name of the game that is played."""
        return self.games[self._task % len(self.games)]

    def _begin_task(self) -> None:
        words = np.random.SeedSequence([self._life or 0, self._task])
        self._random = np.random.RandomState(np.random.MT19937(words))
        self._last = 0
        self._game = self._makers[self._task % len(self.games)](ramping=self.difficulty_ramping)
        self._game.random = self._random  # it has begun with one of its own: it is used after `reset` only

    def _seen(self) -> np.ndarray:
        state = self._game.state()
        seen = np.zeros((10, 10, CHANNELS), np.uint8)
        seen[..., : state.shape[2]] = state
        return seen

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin the next episode or, with a seed, a new life: step 0, task 0, new draws."""
        super().reset(seed=seed)
        if seed is not None or self._life is None:
            self._life = int(seed) if seed is not None else int(np.random.SeedSequence().generate_state(1)[0])
            self.steps, self._task = 0, 0
            self._begin_task()
        elif (task := self.steps // self.change_every) != self._task:
            self._task = task
            self._begin_task()
        self._game.reset()
        return self._seen(), {"task": np.int64(self._task)}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """One frame of the game."""
        if self._random.rand() >= self.sticky_action_prob:
            self._last = int(action)
        reward, ended = self._game.act(self._last)
        self.steps += 1
        return self._seen(), float(reward), bool(ended), False, {"task": np.int64(self._task)}

    def state_dict(self) -> dict[str, Any]:
        """Everything the future depends on, as plain data."""
        random = self._random.get_state(legacy=False)
        inside = random["state"]
        return {
            "games": list(self.games),
            "life": self._life,
            "steps": self.steps,
            "task": self._task,
            "last": self._last,
            "random": {**random, "state": {"key": inside["key"].tolist(), "pos": int(inside["pos"])}},
            "game": {name: _plain(value) for name, value in vars(self._game).items() if name != "random"},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue bit for bit where `state_dict` was called.

        Raises:
            ValueError: of another list of games.
        """
        if list(state["games"]) != list(self.games):
            raise ValueError(f"state is of games={state['games']}, this environment has games={list(self.games)}")
        self._life, self.steps, self._task = state["life"], state["steps"], state["task"]
        self._begin_task()
        self._last = state["last"]
        inside = state["random"]["state"]
        key = np.array(inside["key"], np.uint32)
        self._random.set_state({**state["random"], "state": {"key": key, "pos": inside["pos"]}})
        for name, value in state["game"].items():
            setattr(self._game, name, _unplain(value))


def _plain(value: Any) -> Any:
    """What a game keeps, without NumPy: numbers, lists, dicts; an array as its type and a list."""
    if isinstance(value, np.ndarray):
        return {"array": value.tolist(), "dtype": value.dtype.str}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    return value


def _unplain(value: Any) -> Any:
    if isinstance(value, dict) and set(value) == {"array", "dtype"}:
        return np.array(value["array"], value["dtype"])
    if isinstance(value, list):
        return [_unplain(one) for one in value]
    return value
