"""Stable-baselines3's PPO, with surgery attached to the optimizer of its policy by a callback of a few lines."""

import gymnasium
import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback

from continual_agents import surgery
from tests.clients.promises import Promises, linear_plan


class ContinualBackpropCallback(BaseCallback):
    """All that a user writes."""

    def __init__(self, **settings) -> None:
        super().__init__()
        self.settings = settings

    def _on_training_start(self) -> None:
        policy = self.model.policy
        extractor = policy.mlp_extractor
        networks = {
            "actor": torch.nn.Sequential(*extractor.policy_net, policy.action_net),
            "critic": torch.nn.Sequential(*extractor.value_net, policy.value_net),
        }
        self.cbp = surgery.ContinualBackprop(surgery.find(networks), policy.optimizer, **self.settings)
        self.cbp.attach()

    def _on_step(self) -> bool:
        return True

    def _on_training_end(self) -> None:
        self.cbp.detach()


class Checked(ContinualBackpropCallback):
    """The same, with the promises checked at every optimizer step and the value loss kept."""

    def _on_training_start(self) -> None:
        super()._on_training_start()
        actor, critic = "mlp_extractor.policy_net", "mlp_extractor.value_net"
        plans = {
            "actor.0": linear_plan(f"{actor}.0", f"{actor}.2", 64),
            "actor.2": linear_plan(f"{actor}.2", "action_net", 64),
            "critic.0": linear_plan(f"{critic}.0", f"{critic}.2", 64),
            "critic.2": linear_plan(f"{critic}.2", "value_net", 64),
        }
        assert [units.name for units in self.cbp.units] == list(plans)
        policy = self.model.policy
        self.promises = Promises(policy, policy.optimizer, self.cbp, plans)
        self.losses: list[float] = []

    def _on_rollout_start(self) -> None:
        loss = self.model.logger.name_to_value.get("train/value_loss")
        if loss:
            self.losses.append(loss)

    def _on_training_end(self) -> None:
        assert self.cbp.steps == self.model._n_updates * 4, "once per minibatch, none for a rollout"
        self.promises.finish(self.losses, at_least=3)


class ScaledReward(gymnasium.RewardWrapper):
    """Rewards of about -1, so that the critic learns within seconds."""

    def reward(self, reward: float) -> float:
        return float(reward) / 10


def test_ppo_on_pendulum() -> None:
    torch.manual_seed(0)
    env = ScaledReward(gymnasium.make("Pendulum-v1"))
    model = PPO("MlpPolicy", env, n_steps=256, batch_size=64, n_epochs=10, learning_rate=1e-3, seed=0, device="cpu")
    outputs = (model.policy.action_net, model.policy.value_net)
    before = [layer.weight.detach().clone() for layer in outputs]
    callback = Checked(rate=3e-4, maturity=60, decay=0.0)
    model.learn(256 * 12, callback=callback)
    assert callback.cbp.steps == 12 * 40
    assert all(np.isfinite(value) for value in callback.cbp.report().values())
    assert not any(torch.equal(layer.weight, old) for layer, old in zip(outputs, before, strict=True))
