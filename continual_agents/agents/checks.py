"""Ranges of the settings of agents; their types are the constructors'."""

from typing import Any

from continual_agents.settings import check_counts


def _check_common(settings: dict[str, Any]) -> None:
    """What all agents have."""
    if settings["on_not_finite"] not in ("stop", "skip"):
        raise ValueError(f"agent.on_not_finite={settings['on_not_finite']}: stop or skip")
    for name in ("discount", "gae_lambda"):
        if not 0 <= settings.get(name, 0) <= 1:
            raise ValueError(f"agent.{name}={settings[name]} lies outside [0, 1]")
    if settings["max_gradient_norm"] is not None and not settings["max_gradient_norm"] > 0:
        raise ValueError(f"agent.max_gradient_norm={settings['max_gradient_norm']} must be positive (null: no limit)")


def check_ppo(settings: dict[str, Any]) -> None:
    """The settings of `PPO`.

    Raises:
        ValueError: a value out of range, naming it.
    """
    _check_common(settings)
    batch, minibatch = settings["batch"], settings["minibatch"]
    if not 0 < minibatch <= batch or batch % minibatch:
        raise ValueError(f"agent.batch={batch} is not divisible into minibatches of agent.minibatch={minibatch}")
    if settings["epochs"] < 1:
        raise ValueError(f"agent.epochs={settings['epochs']}: at least one pass over the batch")
    if not 0 < settings["clip"] < 1:
        raise ValueError(f"agent.clip={settings['clip']} lies outside (0, 1)")
    for name in ("value_coefficient", "entropy_coefficient"):
        if not settings[name] >= 0:
            raise ValueError(f"agent.{name}={settings[name]} must not be negative")


def check_off_policy(settings: dict[str, Any]) -> None:
    """The settings of `OffPolicy`.

    Raises:
        ValueError: a value out of range, naming it.
    """
    _check_common(settings)
    check_counts("agent", **{name: settings[name] for name in ("frames_per_batch", "batch_size")})
    check_counts("agent", 0, init_random_frames=settings["init_random_frames"])
    frames, interval = settings["frames_per_batch"], settings["log_interval"]
    if interval < 1 or interval % frames:
        raise ValueError(f"agent.log_interval={interval}: a positive multiple of agent.frames_per_batch={frames}")
    # as a float: .1 times 30 is 3.0000000000000004
    steps = frames * settings["utd_ratio"]
    if not steps >= 1 or abs(steps - round(steps)) > 1e-9:
        raise ValueError(
            f"agent.utd_ratio={settings['utd_ratio']} times agent.frames_per_batch={frames} is {steps:g} gradient "
            "steps: a whole number of at least 1 is needed"
        )
    buffer = settings["replay_buffer"]
    size = buffer.get("size")
    if not {"size"} <= set(buffer) <= {"size", "storage"}:
        raise ValueError(f"agent.replay_buffer={dict(buffer)}: its settings are size and storage")
    if not isinstance(size, int) or isinstance(size, bool):
        raise ValueError(f"agent.replay_buffer.size={size}: a whole number is needed")
    if size < max(settings["batch_size"], frames):
        raise ValueError(f"agent.replay_buffer.size={size}: at least agent.batch_size and agent.frames_per_batch")
    if not 0 <= settings["target_update_polyak"] < 1:
        raise ValueError(f"agent.target_update_polyak={settings['target_update_polyak']} lies outside [0, 1)")
    if settings["hard_update_freq"] is not None and settings["hard_update_freq"] < 1:
        raise ValueError(f"agent.hard_update_freq={settings['hard_update_freq']}: at least 1 (null: Polyak averaging)")


def check_exploration(start: float, end: float, frames: int) -> None:
    """The settings of DQN's exploration.

    Raises:
        ValueError: a value out of range, naming it.
    """
    for name, value in (("eps_start", start), ("eps_end", end)):
        if not 0 <= value <= 1:
            raise ValueError(f"agent.{name}={value}: a probability in [0, 1]")
    check_counts("agent", annealing_frames=frames)


def check_temperature(initial: float, step_size: float) -> None:
    """The settings of SAC's temperature.

    Raises:
        ValueError: a value out of range, naming it.
    """
    if not initial > 0:
        raise ValueError(f"agent.alpha_init={initial} must be positive")
    if not step_size >= 0:
        raise ValueError(f"agent.alpha_step_size={step_size} must not be negative")
