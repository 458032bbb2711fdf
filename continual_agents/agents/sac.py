"""Soft actor-critic with twin critics and a learned temperature (Haarnoja et al. 2018)."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor

from continual_agents.surgery.finding import paused

from .checks import check_temperature
from .dqn import td_target
from .exploration import TanhGaussianPolicy
from .off_policy import OffPolicy
from .value_networks import SoftActorCritic


class SAC(OffPolicy):
    """Maximises reward and the policy's entropy together.

    With `a', log pi'` drawn in s' and `Q_1, Q_2` the critics:

        y           = r + gamma (1 - terminated) (min_i Q_target_i(s', a') - alpha log pi')
        loss_qvalue = sum_i mean((Q_i(s, a) - y)^2)
        loss_actor  = mean(alpha log pi(a~|s) - min_i Q_i(s, a~))
        loss_alpha  = -log alpha mean(log pi(a~|s) + target_entropy)

    The numbers are those of TorchRL's `SACLoss` with `loss_function="l2"`. Unlike there, the critics are plain networks
    that are trained themselves: surgery looks after them as after any other, and counts the critics' own passes, not
    the actor's through them.

    Args:
        networks: bodies `actor`, `critic_1`, `critic_2`; actions lie in [-1, 1].
        given, settings: as in `OffPolicy`. Optimizer and operations do not touch the temperature, which has an Adam of
            its own and begins anew when the whole network does.
        alpha_init: temperature at the beginning, > 0.
        alpha_step_size: of the temperature's optimizer; 0: it stays.
        target_entropy: nats that the policy is held at; None: minus the number of action dimensions.

    Raises:
        ValueError: a value out of range.
    """

    metrics = ("loss/value", "loss/policy", "value/mean", "policy/entropy", "policy/temperature")
    followed = ("critic_1", "critic_2")
    networks: SoftActorCritic

    def __init__(
        self,
        networks: SoftActorCritic,
        *given: Any,
        alpha_init: float = 1.0,
        alpha_step_size: float = 3e-4,
        target_entropy: float | None = None,
        **settings: Any,
    ):
        check_temperature(alpha_init, alpha_step_size)
        super().__init__(networks, *given, **settings)
        policy = networks.policy
        assert isinstance(policy, TanhGaussianPolicy)
        policy.init_random_frames = self.init_random_frames
        self.policy = policy
        self.target_entropy = -float(policy.actions) if target_entropy is None else target_entropy
        self._alpha_init, self._alpha_step_size = alpha_init, alpha_step_size
        self._begin_temperature()
        bodies = networks.bodies
        self._critics = [bodies["critic_1"], bodies["critic_2"]]
        self._actor_parameters = list(bodies["actor"].parameters())
        self._critic_parameters = [p for critic in self._critics for p in critic.parameters()]

    def _begin_temperature(self) -> None:
        self.log_alpha = torch.tensor(math.log(self._alpha_init), requires_grad=True)
        self.alpha_optimizer = torch.optim.Adam([self.log_alpha], lr=self._alpha_step_size, fused=True)

    def after_reset(self) -> None:
        """Targets follow; the temperature begins anew where the whole network did."""
        super().after_reset()
        if any(getattr(operation, "layers", None) == "all" for operation in self.operations):
            self._begin_temperature()

    def losses(self, batch: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Critics' and actor's loss, each with the gradient of its own networks in place; a step of the temperature."""
        policy, alpha = self.policy, self.log_alpha.detach().exp()
        observation = batch["observation"]
        error, value = self._critic_loss(batch, alpha)
        action, log_prob = policy.sample(observation, self._noise(observation))
        with paused():  # the actor's pass through the critics is none of theirs
            chosen = torch.minimum(*(critic(torch.cat((observation, action), -1)) for critic in self._critics))
        objective = (alpha * log_prob - chosen.squeeze(-1)).mean()
        gradients = (
            torch.autograd.grad(error, self._critic_parameters),
            torch.autograd.grad(objective, self._actor_parameters),
        )
        for parameters, given in zip((self._critic_parameters, self._actor_parameters), gradients, strict=True):
            for parameter, gradient in zip(parameters, given, strict=True):
                parameter.grad = gradient
        mean = log_prob.detach().mean()
        # `apply_gradients` looks at the networks' gradients only, and would skip a step that the temperature has taken
        if torch.isfinite(mean):
            self.log_alpha.grad = -(mean + self.target_entropy)
            self.alpha_optimizer.step()
        losses = {"loss_qvalue": error, "loss_actor": objective}
        values = (error, objective, value.mean(), -mean, alpha)
        return losses, dict(zip(self.metrics, values, strict=True))

    def _critic_loss(self, batch: Mapping[str, Any], alpha: Tensor) -> tuple[Tensor, Tensor]:
        """The critics' loss and their values `[2, batch, 1]`."""
        following = batch["next"]
        with torch.no_grad():
            seen = following["observation"]
            action, log_prob = self.policy.sample(seen, self._noise(seen))
            inputs = torch.cat((seen, action), -1)
            soft = torch.minimum(*(target(inputs) for target in self.targets.values())) - alpha * log_prob.unsqueeze(-1)
            wanted = td_target(following["reward"], following["terminated"], soft, self.discount)
        inputs = torch.cat((batch["observation"], batch["action"]), -1)
        values = torch.stack([critic(inputs) for critic in self._critics])
        return (values - wanted).square().mean((1, 2)).sum(), values

    def _noise(self, observation: Tensor) -> Tensor:
        return self.policy.draw_noise(observation.shape[:-1], self.generator)

    def probe_inputs(self, batch: TensorDict, count: int) -> Any:
        """The last `count` observations, for the critics with the actions that were taken."""
        rows = self.recent(batch, count)
        observation = rows["observation"]
        both = torch.cat((observation, rows["action"]), -1)
        return {"actor": observation, "critic_1": both, "critic_2": both}

    def state_dict(self) -> dict[str, Any]:
        """As `OffPolicy`'s, and the temperature."""
        own = {"log_alpha": self.log_alpha.detach().clone(), "alpha_optimizer": self.alpha_optimizer.state_dict()}
        return super().state_dict() | own

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict()`."""
        super().load_state_dict(state)
        with torch.no_grad():
            self.log_alpha.copy_(state["log_alpha"])
        self.alpha_optimizer.load_state_dict(state["alpha_optimizer"])
