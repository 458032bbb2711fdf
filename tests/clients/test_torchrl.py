"""TorchRL's own loss modules, untouched: ClipPPOLoss in both its modes, and SACLoss."""

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import InteractionType, NormalParamExtractor, TensorDictModule
from torch import Tensor, nn
from torchrl.modules import MLP, ProbabilisticActor, TanhNormal, ValueOperator
from torchrl.objectives import ClipPPOLoss, SACLoss, SoftUpdate

from continual_agents import surgery
from tests.clients.promises import Promises, linear_plan
from tests.helpers import descend


class Critic(nn.Module):
    """Value of an observation, or of an observation and an action."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.net = mlp(inputs, 1)

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.net(torch.cat(inputs, -1))


def mlp(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, 24), nn.ReLU(), nn.Linear(24, 20), nn.ReLU(), nn.Linear(20, outputs))


def make_actor() -> ProbabilisticActor:
    return ProbabilisticActor(
        TensorDictModule(nn.Sequential(mlp(3, 2), NormalParamExtractor()), ["observation"], ["loc", "scale"]),
        in_keys=["loc", "scale"],
        distribution_class=TanhNormal,
        default_interaction_type=InteractionType.RANDOM,
        return_log_prob=True,
    )


def play(actor: ProbabilisticActor, count: int, generator: torch.Generator) -> TensorDict:
    """One-step episodes: the nearer the action to the first observation's half, the better."""
    batch = TensorDict({"observation": torch.rand(count, 3, generator=generator) * 2 - 1}, [count])
    with torch.no_grad():
        actor(batch)
    reward = -((batch["action"] - batch["observation"][:, :1] / 2) ** 2) * 4
    done = torch.ones(count, 1, dtype=torch.bool)
    following = {"observation": torch.zeros(count, 3), "reward": reward, "done": done, "terminated": done}
    return batch.set("next", TensorDict(following, [count]))


@pytest.mark.parametrize("functional", [True, False])
def test_clip_ppo_loss(functional: bool) -> None:
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    actor, critic = make_actor(), Critic(3)
    loss_module = ClipPPOLoss(
        actor, ValueOperator(critic, in_keys=["observation"]), entropy_bonus=False, functional=functional
    )
    optimizer = surgery.Adam(loss_module.parameters(), lr=2e-3)
    net = nn.ModuleDict({"actor": actor.module[0].module[0], "critic": critic.net})
    units = surgery.find(net)
    assert [u.name for u in units] == ["actor.0", "actor.2", "critic.0", "critic.2"]
    cbp = surgery.ContinualBackprop(units, optimizer, rate=5e-4, maturity=40, decay=0.0)
    plans = {
        f"{net}.{i}": linear_plan(f"{net}.{i}", f"{net}.{i + 2}", (24, 20)[i // 2])
        for net in ("actor", "critic")
        for i in (0, 2)
    }
    promises = Promises(net, optimizer, cbp, plans)
    costs = []
    for _ in range(48):
        batch = play(actor, 64, generator)
        reward = batch["next", "reward"]
        costs.append(-reward.mean().item())
        with torch.no_grad():
            value = critic(batch["observation"])
        batch["advantage"], batch["value_target"] = reward - value, reward
        for _ in range(5):
            losses = loss_module(batch)
            descend(losses["loss_objective"] + losses["loss_critic"], optimizer, cbp)
    assert cbp.steps == 240
    promises.finish(costs)


def make_sac() -> tuple[ProbabilisticActor, Critic, SACLoss]:
    actor, critic = make_actor(), Critic(4)
    value = ValueOperator(critic, in_keys=["observation", "action"])
    loss_module = SACLoss(actor, value, num_qvalue_nets=2, target_entropy=-1.0, fixed_alpha=True, alpha_init=0.02)
    return actor, critic, loss_module


def test_sac_loss_actor() -> None:
    """SACLoss trains the actor's own parameters: surgery works on it as on any network."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    actor, _, loss_module = make_sac()
    updater = SoftUpdate(loss_module, tau=0.05)
    optimizer = surgery.Adam(loss_module.parameters(), lr=2e-3)
    net = actor.module[0].module[0]
    cbp = surgery.ContinualBackprop(surgery.find(net), optimizer, rate=5e-4, maturity=40, decay=0.0)
    plans = {"0": linear_plan("0", "2", 24), "2": linear_plan("2", "4", 20)}
    promises = Promises(net, optimizer, cbp, plans)
    critics = [loss_module.qvalue_network_params, loss_module.target_qvalue_network_params]
    costs = []
    for _ in range(300):
        batch = play(actor, 64, generator)
        costs.append(-batch["next", "reward"].mean().item())
        losses = loss_module(batch)
        descend(losses["loss_actor"] + losses["loss_qvalue"], optimizer)
        before = [critic.detach().clone() for critic in critics]
        cbp.step()
        assert all((old == new).all() for old, new in zip(before, critics, strict=True))
        updater.step()
    promises.finish(costs)


def test_sac_loss_critic_is_refused() -> None:
    """It trains stacked copies of the critic's parameters: edits of the critic itself would reach nothing."""
    _, critic, loss_module = make_sac()
    optimizer = torch.optim.Adam(loss_module.parameters(), lr=1e-3)
    with pytest.raises(ValueError, match="trains none of the layers that make units '0'.*copy of the network"):
        surgery.ContinualBackprop(surgery.find(critic.net), optimizer)
    assert not any(module._forward_pre_hooks for module in critic.net.modules()), "a refusal leaves no hooks"
    assert not optimizer._optimizer_step_post_hooks, "a refusal leaves no hooks"


def test_a_loss_is_no_network() -> None:
    """The refusal names the loss, and the way to its stacked critics."""
    stacked = r"SACLoss is a loss .* surgery.find\(net\) .*; for the stacked qvalue_network_params \[2\] surgery.find\("
    with pytest.raises(ValueError, match=stacked):
        surgery.find(make_sac()[2])
    plain = ClipPPOLoss(make_actor(), ValueOperator(Critic(3), in_keys=["observation"]))
    with pytest.raises(ValueError, match=r"ClipPPOLoss is a loss .* parameters it trains$"):
        surgery.find(plain, torch.randn(2, 3))


def test_torchrls_mlp_is_found_without_example_inputs() -> None:
    """Its forward takes any number of inputs, which torch.fx cannot follow: the first layer says how wide one is."""
    net = MLP(in_features=3, out_features=2, num_cells=[6, 5], activation_class=nn.ReLU)
    assert repr(surgery.find(net)).splitlines()[:2] == [
        "0: Linear[6] -> ReLU -> 2: Linear",
        "2: Linear[5] -> ReLU -> 4: Linear",
    ]
    lazy = MLP(out_features=2, num_cells=[6])
    with pytest.raises(ValueError, match=r"layers \['0'\] are lazy"):
        surgery.find(lazy)
    assert [units.name for units in surgery.find(lazy, torch.randn(2, 3))] == ["0"]
    assert [units.name for units in surgery.find(lazy)] == ["0"]
