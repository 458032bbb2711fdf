"""What agents with a replay buffer have in common: when they learn, from what, and how targets follow."""

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from tensordict import TensorDict
from torch import Tensor, nn

from continual_agents.methods import AfterStep

from .checks import check_off_policy
from .learner import Learner, batch_is_finite
from .networks import Networks
from .replay import Replay, transitions


class OffPolicy(Learner):
    """Learns from a replay buffer, `utd_ratio` gradient steps for every environment step.

    Args:
        networks: what acts and what is trained.
        optimizer: trains all of `networks.parameters()`.
        operations: run after every gradient step, in order.
        frames_per_batch: environment steps between two rounds of learning.
        init_random_frames: environment steps of random actions at the beginning, without learning.
        utd_ratio: gradient steps per environment step; times `frames_per_batch` a whole number.
        batch_size: transitions per gradient step.
        replay_buffer: `size`: transitions that are kept; `storage`: "memory" or "memmap", as of `Replay`.
        empty_at_change: whether the buffer forgets everything when the task changes; `fresh` is a new agent only then.
        discount: gamma, in [0, 1].
        target_update_polyak: `target <- polyak target + (1 - polyak) online` after every gradient step; in [0, 1).
        hard_update_freq: instead, copy the online network every so many gradient steps; None: Polyak averaging.
        log_interval: environment steps per row of the table, a multiple of `frames_per_batch`.
        max_gradient_norm: gradients are scaled down to this norm; None: never.
        on_not_finite: "stop" when a gradient is not finite, or "skip": leave out the step, or a batch that the
            environment gave such numbers in, and count it.
        generator: samples, and the noise of the update.

    Surgery and noise act on the online networks; a target follows them as it follows a gradient step. After a reset of
    layers it is made equal to its online network.

    Raises:
        ValueError: a value out of range.
    """

    metrics: tuple[str, ...]
    followed: tuple[str, ...]
    """Names of the bodies that have a target network."""

    def __init__(
        self,
        networks: Networks,
        optimizer: torch.optim.Optimizer,
        operations: Sequence[AfterStep] = (),
        *,
        frames_per_batch: int = 10,
        init_random_frames: int = 1_000,
        utd_ratio: float = 1.0,
        batch_size: int = 256,
        replay_buffer: Mapping[str, Any] = {"size": 1_000_000},
        empty_at_change: bool = False,
        discount: float = 0.99,
        target_update_polyak: float = 0.995,
        hard_update_freq: int | None = None,
        log_interval: int = 1_000,
        max_gradient_norm: float | None = None,
        on_not_finite: Literal["stop", "skip"] = "stop",
        generator: torch.Generator,
    ):
        check_off_policy(locals())
        super().__init__(
            networks,
            optimizer,
            operations,
            max_gradient_norm=max_gradient_norm,
            on_not_finite=on_not_finite,
            generator=generator,
        )
        self.frames_per_batch, self.frames_per_row = frames_per_batch, log_interval
        self.init_random_frames = init_random_frames
        self.steps_per_batch = round(frames_per_batch * utd_ratio)
        self.batch_size, self.discount = batch_size, discount
        self.polyak, self.hard_update_freq = target_update_polyak, hard_update_freq
        self.empty_at_change = empty_at_change
        self.replay = Replay(generator=generator, **replay_buffer)
        # copies have no hooks: surgery looks at the online networks alone
        self.targets: dict[str, nn.Module] = {name: _copy(networks.bodies[name]) for name in self.followed}
        self._pairs: tuple[list[Tensor], list[Tensor]] = (
            [p for name in self.followed for p in self.targets[name].parameters()],
            [p for name in self.followed for p in networks.bodies[name].parameters()],
        )
        self._resets = self._count_resets()

    def losses(self, batch: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Losses by name, after putting their gradients in place; and numbers for the table, `self.metrics`."""
        raise NotImplementedError

    def update(self, batch: TensorDict) -> dict[str, float]:
        """Keep a batch and take the gradient steps that it is worth."""
        self.operation_seconds = 0.0
        if self.on_not_finite == "skip" and not batch_is_finite(batch):
            return self._row([], self.steps_per_batch)
        self.replay.extend(transitions(batch))
        if self.replay.count < self.init_random_frames:
            return self._row([], 0)
        rows, skipped = [], 0
        # one draw for all of them: TorchRL's buffer costs as much for one minibatch as for many
        drawn = self.replay.sample(self.steps_per_batch * self.batch_size)
        for minibatch in _minibatches(drawn, self.batch_size):
            losses, seen = self.losses(minibatch)
            norm = self.apply_gradients(losses)
            if norm is None:
                skipped += 1
                continue
            self._follow()
            rows.append(torch.stack([*(seen[name].detach() for name in self.metrics), norm]))
        return self._row(rows, skipped)

    def _row(self, rows: list[Tensor], skipped: int) -> dict[str, float]:
        names = (*self.metrics, "optimizer/gradient_norm")
        values = torch.stack(rows).mean(0).tolist() if rows else [math.nan] * len(names)
        return {**dict(zip(names, values, strict=True)), "optimizer/skipped_steps": float(skipped)}

    @torch.no_grad()
    def _follow(self) -> None:
        """Let the targets follow."""
        if self._was_reset():
            self.after_reset()
        elif self.hard_update_freq is None:
            torch._foreach_lerp_(*self._pairs, 1.0 - self.polyak)
        elif self.gradient_steps % self.hard_update_freq == 0:
            self.restart_targets()

    @torch.no_grad()
    def restart_targets(self) -> None:
        """Make every target equal to its online network."""
        torch._foreach_copy_(*self._pairs)

    def start_task(self) -> None:
        """Tell the operations that the next batch is of another task."""
        super().start_task()
        if self.empty_at_change:
            self.replay.empty()
        if self._was_reset():
            self.after_reset()

    def after_reset(self) -> None:
        """What follows when an operation has reset layers."""
        self.restart_targets()

    def _was_reset(self) -> bool:
        before, self._resets = self._resets, self._count_resets()
        return self._resets != before

    def _count_resets(self) -> int:
        return sum(int(getattr(operation, "resets", 0)) for operation in self.operations)

    def probe_inputs(self, batch: TensorDict, count: int) -> Any:
        """The last `count` observations of the buffer."""
        return self.recent(batch, count)["observation"]

    def recent(self, batch: TensorDict, count: int) -> TensorDict:
        """The last `count` transitions; of `batch` where the buffer has just been emptied."""
        return self.replay.recent(count) if len(self.replay) else transitions(batch)[-count:]

    def begin_beside(self, folder: Path) -> None:
        """A memory-mapped buffer lies in the run folder."""
        self.replay.lie_in(folder / "replay")

    def save_beside(self, folder: Path) -> None:
        """Append the new transitions to the run's replay log."""
        self.replay.save(folder / "replay")

    def load_beside(self, folder: Path) -> None:
        """Read the transitions that the checkpoint counts."""
        self.replay.load(folder / "replay", *self._stored)

    def state_dict(self) -> dict[str, Any]:
        """What the next update depends on, but for the transitions: `save_beside` writes those."""
        targets = {name: body.state_dict() for name, body in self.targets.items()}
        return {
            **super().state_dict(),
            "targets": targets,
            "transitions": self.replay.count,
            "since": self.replay.since,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict()`."""
        super().load_state_dict(state)
        for name, body in self.targets.items():
            body.load_state_dict(state["targets"][name])
        self._stored = int(state["transitions"]), int(state.get("since", 0))
        self._resets = self._count_resets()


def _minibatches(drawn: TensorDict, size: int) -> Iterator[dict[str, Any]]:
    """`size` transitions each, nested as in a batch; plain, because slices of a TensorDict cost more than a pass."""
    own = [drawn.get(name).split(size) for name in ("observation", "action")]
    following = [drawn.get("next").get(name).split(size) for name in ("observation", "reward", "terminated")]
    for observation, action, seen, reward, terminated in zip(*own, *following, strict=True):
        after = {"observation": seen, "reward": reward, "terminated": terminated}
        yield {"observation": observation, "action": action, "next": after}


def _copy(body: nn.Module) -> nn.Module:
    """The same network with parameters of its own that no gradient reaches, and without anybody's hooks."""
    twin = copy.deepcopy(body).requires_grad_(False)
    for module in twin.modules():
        for hooks in (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks):
            hooks.clear()
    return twin
