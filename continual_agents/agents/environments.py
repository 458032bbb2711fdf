"""Any gymnasium environment as the collector wants it, begun, seeded and asked in one way."""

import difflib
import importlib
import importlib.util
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gymnasium
import gymnasium.wrappers.vector
import numpy as np
from gymnasium.spaces import Box
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv, VectorWrapper

from .draws import member_seeds
from .errors import EnvironmentFault
from .spaces import is_picture

Environment = gymnasium.Env[Any, Any] | VectorEnv[Any, Any, Any]


def make_environment(
    source: str | Callable[[], Any] | Environment, count: int = 1, *, render_mode: str | None = None
) -> Environment:
    """One environment, or `count` of them in this process as a vector environment that the collector resets itself.

    Args:
        source: a gymnasium id, also `module:id` for one that `module` registers (installed, or in the working folder);
            a callable that returns an environment; or an environment.
        count: how many; a ready-made environment is taken as it is.
        render_mode: of an environment made by its id.

    Raises:
        ValueError: `count` below 1, an unknown id, with the nearest known one, or a module that cannot be imported.
        TypeError: a source of another kind.
    """
    if count < 1:
        raise ValueError(f"environment.count={count}: at least one environment is needed")
    if isinstance(source, gymnasium.Env | VectorEnv):
        return source
    if isinstance(source, str):
        name = _registered(source)
        make: Callable[[], Any] = lambda: _made(name, render_mode)  # noqa: E731
    elif callable(source):
        make = source
    else:
        raise TypeError(f"an environment, a gymnasium id or a callable is needed, got {type(source).__name__}")
    if count == 1:
        return make()
    return SyncVectorEnv([lambda: Member(make())] * count, autoreset_mode=AutoresetMode.DISABLED)


class Member(gymnasium.Wrapper[Any, Any, Any, Any]):
    """One of several environments in a vector, which unpacks and copies what it gets without looking.

    Raises:
        EnvironmentFault: `reset` or `step` gave what gymnasium's do not.
    """

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """The inner one's, looked at."""
        arguments = {key: value for key, value in (("seed", seed), ("options", options)) if value not in (None, {})}
        return first_observation(self.env, 1, **arguments).reshape(self.env.observation_space.shape), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """The inner one's, looked at; the reward as a number."""
        given = self.env.step(action)
        try:
            observation, reward, terminated, truncated, info = given
            as_rows(observation, 1, self.env)
            return observation, np.asarray(reward, np.float64).item(), bool(terminated), bool(truncated), info
        except (TypeError, ValueError) as error:
            raise unfit_step(self.env, error) from error


def unfit_step(environment: Environment, error: Exception) -> EnvironmentFault:
    """What to say of an environment whose `step` gave something else than gymnasium's."""
    space = getattr(environment, "single_observation_space", environment.observation_space)
    return EnvironmentFault(
        f"the environment {name_of(environment)} gave something unfit from step ({' '.join(str(error).split())}): "
        f"gymnasium's step returns (observation of shape {space.shape}, reward, terminated, truncated, info)"
    )


def rescale_actions(environment: Environment) -> Environment:
    """The environment behind actions from -1 to 1, which become its whole range.

    Raises:
        ValueError: actions that are no `Box` with finite bounds.
    """
    vector = isinstance(environment, VectorEnv)
    space = environment.single_action_space if isinstance(environment, VectorEnv) else environment.action_space
    if not isinstance(space, Box) or not space.is_bounded():
        raise ValueError(f"action space {space} is not a Box with finite bounds")
    if (space.low == -1).all() and (space.high == 1).all():
        return environment
    wrapper: Any = gymnasium.wrappers.vector.RescaleAction if vector else gymnasium.wrappers.RescaleAction
    low, high = np.full(space.shape, -1, space.dtype), np.full(space.shape, 1, space.dtype)
    return wrapper(environment, low, high)


def _registered(source: str) -> str:
    """The id behind the colon, once the module in front of it has been imported, as `gymnasium.make` does."""
    module, _, name = source.rpartition(":")
    if module:
        try:
            _import(module)
        except Exception as error:
            said = " ".join(str(error).split())
            raise ValueError(
                f"environment.id={source!r}: the module {module!r} cannot be imported ({type(error).__name__}: "
                f"{said}): install it, or run where it lies"
            ) from error
    try:
        gymnasium.spec(name)
    except gymnasium.error.Error as error:
        near = difflib.get_close_matches(name, gymnasium.registry, n=1)
        known = f"did you mean {near[0]!r}?" if near else "name the module that registers it, as mypackage:Mine-v0"
        if module:
            known = f"{module!r} registers no such id" + (f", did you mean {near[0]!r}?" if near else "")
        raise ValueError(f"environment.id={source!r} is not registered with gymnasium: {known}") from error
    return name


def _import(module: str) -> None:
    """Import a module that is installed or lies in the working folder, which not every way to start has on its path."""
    if module in sys.modules:
        return
    here = str(Path.cwd())
    if importlib.util.find_spec(module.partition(".")[0]) is None and here not in sys.path:
        sys.path.append(here)
        importlib.invalidate_caches()
    importlib.import_module(module)


def _made(name: str, render_mode: str | None) -> Any:
    """The environment of an id.

    Raises:
        ValueError: its constructor failed.
    """
    try:
        # not given where nobody asked: a constructor without arguments is a good one
        rendered: dict[str, Any] = {} if render_mode is None else {"render_mode": render_mode}
        return gymnasium.make(name, disable_env_checker=True, **rendered)
    except gymnasium.error.Error:
        raise
    except Exception as error:
        said = " ".join(str(error).split())
        raise ValueError(f"environment.id={name!r} cannot be made: {type(error).__name__}: {said}") from error


def name_of(environment: Any) -> str:
    """What to call an environment in a message: its id, or its class."""
    spec = getattr(environment, "spec", None)
    return str(spec.id) if spec is not None else type(environment.unwrapped).__name__


def begin(environment: Environment, seed: int) -> np.ndarray:
    """A new life in every environment: their first observations, as `as_rows` has them.

    Raises:
        EnvironmentFault: `reset` failed or gave something else than `(observation, info)`.
    """
    if not isinstance(environment, VectorEnv):
        return first_observation(environment, 1, seed=seed)
    count = environment.num_envs
    try:
        return first_observation(environment, count, seed=member_seeds(seed, count))
    except EnvironmentFault as error:
        if isinstance(environment.unwrapped, SyncVectorEnv):
            raise
        try:  # one generator for all members: such a vector environment takes a number only
            return first_observation(environment, count, seed=seed)
        except EnvironmentFault:
            raise error from None


def first_observation(environment: Environment, count: int, **arguments: Any) -> np.ndarray:
    """What `reset(**arguments)` shows, as `as_rows` has it.

    Raises:
        EnvironmentFault: `reset` failed or gave something else than `(observation, info)`.
    """
    said = f"reset({', '.join(f'{key}={value}' for key, value in arguments.items())})"
    try:
        given = environment.reset(**arguments)
    except Exception as error:
        raise EnvironmentFault(
            f"the environment {name_of(environment)} failed in {said}: {type(error).__name__}: "
            f"{' '.join(str(error).split())}"
        ) from error
    if not isinstance(given, tuple) or len(given) != 2 or not isinstance(given[1], dict):
        raise EnvironmentFault(
            f"the environment {name_of(environment)} gave {_shape_of(given)} from {said}: gymnasium's reset returns "
            "(observation, info), info being a dict"
        )
    try:
        return as_rows(given[0], count, environment)
    except (TypeError, ValueError) as error:
        raise EnvironmentFault(f"the environment {name_of(environment)}, {said}: {error}") from error


def as_rows(observation: Any, count: int, environment: Environment) -> np.ndarray:
    """An observation as float32 `[count, observation]`; pictures as uint8 `[count, *their shape]`.

    Raises:
        ValueError: another shape than the environment's observation space says, or pictures that are no uint8.
    """
    single = getattr(environment, "single_observation_space", environment.observation_space)
    picture, shape = is_picture(single), tuple(single.shape or ())
    rows = np.array(observation, dtype=None if picture else np.float32)
    if picture and rows.dtype != np.uint8:
        raise ValueError(f"an observation of {rows.dtype}, its observation space says uint8")
    expected = (count, *shape) if isinstance(environment, VectorEnv) else shape
    if rows.shape != expected:
        raise ValueError(f"an observation of shape {rows.shape}, its observation space says {expected}")
    return rows.reshape(count, *shape) if picture else rows.reshape(count, -1)


def _shape_of(given: Any) -> str:
    if isinstance(given, tuple):
        return f"a tuple of {len(given)} ({', '.join(type(one).__name__ for one in given)})"
    return f"a {type(given).__name__}"


def tell(environment: Environment, name: str) -> np.ndarray:
    """What the environments, or the wrappers around them, say of themselves (`friction`, `task`).

    Returns:
        float64 `[envs]`; nan where they say nothing, or no number.
    """
    count = getattr(environment, "num_envs", 1)
    layer: Any = environment
    while True:
        if hasattr(layer, name):
            return _numbers([getattr(layer, name)] if count == 1 else getattr(layer, name), count)
        if not isinstance(layer, gymnasium.Wrapper | VectorWrapper):
            break
        layer = layer.env
    if isinstance(layer, SyncVectorEnv):
        return np.concatenate([tell(member, name) for member in layer.envs])
    return np.full(count, np.nan)


def _numbers(value: Any | Sequence[Any], count: int) -> np.ndarray:
    try:
        return np.broadcast_to(np.asarray(value, dtype=np.float64).reshape(-1), (count,))
    except (TypeError, ValueError):  # a task may be a word or an object elsewhere
        return np.full(count, np.nan)
