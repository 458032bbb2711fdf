"""Deep Q-learning (Mnih et al. 2015), double by default (van Hasselt et al. 2016)."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import mse_loss, smooth_l1_loss

from continual_agents.methods import AfterStep

from .checks import check_exploration
from .exploration import EpsilonGreedyPolicy
from .off_policy import OffPolicy
from .value_networks import QNetwork

DISTANCES = {"smooth_l1": smooth_l1_loss, "l2": mse_loss}


def td_target(reward: Tensor, terminated: Tensor, next_value: Tensor, discount: float) -> Tensor:
    """`r + gamma (1 - terminated) V(s')`; a time limit is no termination."""
    return reward + discount * (~terminated) * next_value


class DQN(OffPolicy):
    """Minimises the distance of `Q(s, a)` to `r + gamma (1 - terminated) Q_target(s', a*)`.

    `a*` is the best action in s' by the online network (double) or by the target network. The numbers are those of
    TorchRL's `DQNLoss`, without its copies of TensorDicts.

    Args:
        networks: one body, `q`.
        optimizer, operations, settings: as in `OffPolicy`, four of them with other defaults.
        double: choose the next action with the online network.
        loss_function: distance of the value to its target: "smooth_l1" or "l2".
        eps_start: probability of a random action at step 0, in [0, 1].
        eps_end: the same after `annealing_frames`.
        annealing_frames: environment steps over which it falls, at least 1.

    Raises:
        ValueError: a value out of range.
    """

    metrics = ("loss/value", "value/mean", "policy/epsilon")
    followed = ("q",)
    networks: QNetwork

    def __init__(
        self,
        networks: QNetwork,
        optimizer: torch.optim.Optimizer,
        operations: Sequence[AfterStep] = (),
        *,
        batch_size: int = 64,
        replay_buffer: Mapping[str, Any] = {"size": 100_000},
        hard_update_freq: int | None = 500,
        max_gradient_norm: float | None = 10.0,
        double: bool = True,
        loss_function: Literal["smooth_l1", "l2"] = "smooth_l1",
        eps_start: float = 1.0,
        eps_end: float = 0.05,
        annealing_frames: int = 10_000,
        **settings: Any,
    ):
        check_exploration(eps_start, eps_end, annealing_frames)
        super().__init__(
            networks, optimizer, operations, batch_size=batch_size, replay_buffer=replay_buffer,
            hard_update_freq=hard_update_freq, max_gradient_norm=max_gradient_norm, **settings,
        )  # fmt: skip
        self.double, self.distance = double, DISTANCES[loss_function]
        policy = networks.policy
        assert isinstance(policy, EpsilonGreedyPolicy)
        policy.schedule(self.init_random_frames, eps_start, eps_end, annealing_frames)

    def losses(self, batch: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The one loss, its gradient in place."""
        online, target, following = self.networks.bodies["q"], self.targets["q"], batch["next"]
        with torch.no_grad():
            seen = following["observation"]
            values = target(seen)
            best = (online(seen) if self.double else values).argmax(-1, keepdim=True)
            wanted = td_target(following["reward"], following["terminated"], values.gather(-1, best), self.discount)
        value = online(batch["observation"]).gather(-1, batch["action"].unsqueeze(-1))
        loss: Tensor = self.distance(value, wanted)
        for parameter in self._parameters:
            parameter.grad = None
        loss.backward()
        epsilon = torch.tensor(self.networks.policy.epsilon)
        return {"loss": loss}, {"loss/value": loss, "value/mean": value.mean(), "policy/epsilon": epsilon}
