"""A policy at play, as pictures."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from continual_agents.agents.policies import Policy

STEPS_PER_SECOND = 60
"""Environment steps of 16.5 ms in a second of the ant's life."""


class Player:
    """A policy in an environment of its own, one step at a time.

    Args:
        policy: whose actions are taken; nothing of it changes.
        environment: one that renders "rgb_array"; closed by the caller.
        title: first line of the caption.
        friction: of the ground, for the caption; None where the ground has none.
        seed: of the starting poses and of the actions.
        sample: draw actions as in training, instead of the policy's mean (or likeliest) action.
    """

    def __init__(
        self, policy: Policy, environment: Any, title: str, *, friction: float | None, seed: int = 0,
        sample: bool = False,
    ):  # fmt: skip
        self.policy, self.environment, self.title, self.friction = policy, environment, title, friction
        self.generator = torch.Generator().manual_seed(seed)
        self.sample = sample
        self.returned = 0.0
        policy.begin()
        self.observation, _ = environment.reset(seed=seed)

    @torch.no_grad()
    def step(self) -> None:
        """Act once; a new episode begins where one ends."""
        # for mean actions too: it tells their shape
        noise = self.policy.draw_noise((1,), self.generator)
        observation = torch.as_tensor(np.asarray(self.observation, dtype=np.float32))[None]
        action = self.policy.act(observation, noise if self.sample else torch.zeros_like(noise))[0].numpy()
        self.observation, reward, terminated, truncated, _ = self.environment.step(action)
        self.returned += float(reward)
        if terminated or truncated:
            self.returned = 0.0
            self.policy.begin()
            self.observation, _ = self.environment.reset()

    def picture(self) -> np.ndarray:
        """The scene now with a caption, `[height, width, 3]` uint8."""
        scene = Image.fromarray(np.asarray(self.environment.render(), dtype=np.uint8)[..., :3])
        ground = "" if self.friction is None else f"friction {self.friction:.2g}, "
        return np.asarray(_captioned(scene, [self.title, f"{ground}return {self.returned:.0f}"]))


def pictures(players: Sequence[Player], seconds: float, frames_per_second: int) -> Iterator[np.ndarray]:
    """The players side by side, for some seconds of their life."""
    for _ in range(int(seconds * frames_per_second)):
        yield np.concatenate([player.picture() for player in players], axis=1)
        for player in players:
            for _ in range(STEPS_PER_SECOND // frames_per_second):
                player.step()


class Film:
    """Short films of a policy that is being trained.

    Every film has a simulator of its own and the policy's mean actions: the run's numbers stay as they are.

    Args:
        policy: the policy in training.
        make_environment: friction -> an environment that renders "rgb_array".
        name: what the policy is called.
        seconds: length, in the robot's time.
    """

    frames_per_second = 15

    def __init__(
        self, policy: Policy, make_environment: Callable[[float], Any], name: str, *, seconds: float = 4.0
    ):  # fmt: skip
        self.policy, self.make_environment, self.name, self.seconds = policy, make_environment, name, seconds

    def __call__(self, step: int, friction: float) -> np.ndarray:
        """The policy after `step` steps on ground of `friction`: `[time, height, width, 3]` uint8."""
        environment = self.make_environment(friction)
        try:
            player = Player(self.policy, environment, f"{self.name}, {step:,} steps", friction=friction)
            return np.stack(list(pictures([player], self.seconds, self.frames_per_second)))
        finally:
            environment.close()


def _captioned(scene: Image.Image, lines: Sequence[str]) -> Image.Image:
    """The scene with lines of text on a dark strip below it; even width and height, as video codecs ask for."""
    size = max(11, scene.height // 20)
    font = ImageFont.load_default(size=size)
    strip = int(1.35 * size * len(lines)) + size // 2
    height = scene.height + strip
    whole = Image.new("RGB", (scene.width + scene.width % 2, height + height % 2), "#202020")
    whole.paste(scene, (0, 0))
    ImageDraw.Draw(whole).multiline_text((size // 2, scene.height + size // 4), "\n".join(lines), "white", font)
    return whole
