"""C-CHAIN's penalty: divergences against torch's own, the term by hand, and PPO's update with it written out."""

import copy

import pytest
import torch
from gymnasium.spaces import Discrete
from torch import nn
from torch.distributions import Categorical, Independent, Normal, kl_divergence

from continual_agents.agents import PPO, ActorCritic, ClippedLoss
from continual_agents.agents.policies import CategoricalPolicy, GaussianPolicy
from continual_agents.methods import Method
from continual_agents.methods.churn import ChurnPenalty
from supervised import make_plans
from tests.agents.test_ppo import agent, batch_of
from tools.command_line import UsageError, compose_config, plain_config
from tools.train import build


def test_divergences_are_those_of_the_distributions() -> None:
    draws = torch.Generator().manual_seed(0)
    means, deviations = torch.randn(2, 5, 3, generator=draws), torch.rand(2, 5, 3, generator=draws) + 0.1
    policy = GaussianPolicy(nn.Sequential(nn.Linear(2, 3)))
    of, to = zip(means, deviations, strict=True)
    expected = kl_divergence(Independent(Normal(*of), 1), Independent(Normal(*to), 1))
    torch.testing.assert_close(policy.kl(of, to), expected)
    of, to = means
    expected = kl_divergence(Categorical(logits=of), Categorical(logits=to))
    torch.testing.assert_close(CategoricalPolicy(nn.Sequential(nn.Linear(2, 3))).kl(of, to), expected)


def test_the_term_and_its_gradient_by_hand() -> None:
    policy = GaussianPolicy(nn.Sequential(nn.Linear(1, 1, bias=False)))
    weight, states = policy.body[0].weight, torch.tensor([[2.0], [4.0]])
    weight.data.fill_(1.0)
    churn = ChurnPenalty(scale=0.05, decay=0.9)
    assert churn.penalty(policy, states, torch.tensor(7.0)) == 0.0
    churn.step()
    weight.data.fill_(1.5)
    # means move by .5 * (2, 4): KL (.5, 2), on average 1.25; the term is .05 of the loss
    assert churn.penalty(policy, states, torch.tensor(-3.0)).item() == pytest.approx(0.15)
    churn.step()
    weight.data.fill_(1.0)
    term = churn.penalty(policy, states, torch.tensor(1.0))
    # means of |loss|: .1 * 3, then .9 * .3 + .1 * 1 = .37; of KL: .125, then .9 * .125 + .125 = .2375
    weight_of_term = 0.05 * 0.37 / 0.2375
    assert term.item() == pytest.approx(weight_of_term * 1.25)
    term.backward()
    assert weight.grad.item() == pytest.approx(weight_of_term * -0.5 * 10)  # delta times the mean of s^2
    assert churn.report() == pytest.approx({"churn": 0.2375})


SETTINGS = {"batch": 32, "minibatch": 8, "epochs": 2}


def learner(networks: ActorCritic) -> PPO:
    method = Method(name="churn", optimizer={"kind": "sgd", "step_size": 0.1}, operations={"churn": {"decay": 0.9}})
    optimizer = method.make_optimizer(networks.parameters())
    operations = method.make_operations(networks.bodies, optimizer, torch.Generator())
    return PPO(networks, optimizer, operations, generator=torch.Generator().manual_seed(0), **SETTINGS)


def density(networks: ActorCritic, observation: torch.Tensor) -> Categorical:
    return Categorical(logits=networks.policy(observation))


def test_an_update_is_the_loop_written_out_and_continues_exactly() -> None:
    ours, theirs = agent(Discrete(3)), agent(Discrete(3))
    ppo, batch = learner(ours), batch_of(ours)
    ppo.estimate(batch)
    given = batch.clone()
    ppo.update(batch)
    loss = ClippedLoss(theirs, clip=0.2, value_coefficient=1.0, entropy_coefficient=0.0)
    draws, before, loss_mean, churn_mean = torch.Generator().manual_seed(0), None, 0.0, 0.0
    for _ in range(2):
        parts = given[torch.randperm(32, generator=draws)].split(8)
        for number, part in enumerate(parts):
            terms = loss(part)
            total = terms["loss_objective"] + terms["loss_critic"]
            if before is not None:
                states = parts[(number + 1) % 4]["observation"]
                with torch.no_grad():
                    old = density(before, states)
                churn = kl_divergence(old, density(theirs, states)).mean()
                loss_mean = 0.9 * loss_mean + 0.1 * abs(terms["loss_objective"].item())
                churn_mean = 0.9 * churn_mean + 0.1 * churn.item()
                total = total + 0.05 * loss_mean / churn_mean * churn
            before = copy.deepcopy(theirs)
            for parameter, gradient in zip(
                theirs.parameters(), torch.autograd.grad(total, theirs.parameters()), strict=True
            ):
                parameter.data -= 0.1 * gradient
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        # the penalty is a ratio of divergences of nearly equal policies in float32: rounding is all that is left
        torch.testing.assert_close(one, other, rtol=1e-3, atol=5e-5)
    again = learner(agent(Discrete(3), seed=1))
    again.load_state_dict(copy.deepcopy(ppo.state_dict()))
    following = batch_of(theirs, seed=1)
    assert ppo.update(following.clone()) == again.update(following.clone())
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), again.networks.parameters(), strict=True))


def test_whoever_has_no_policy_loss_refuses_it() -> None:
    for words, message in (
        (["experiment=dqn_cartpole"], "ChurnPenalty is a term of PPO's loss, DQN has no place for it"),
        (["experiment=permuted_digits"], "method churn: churn is a term of a policy's loss, streams have no policy"),
    ):
        with pytest.raises(UsageError, match=message):
            build(plain_config(compose_config([*words, "scale=smoke", "method=churn"])))
    with pytest.raises(ValueError, match="streams have no policy"):
        make_plans({"stream": {}, "seeds": 1}, {"churn": Method(name="churn", operations={"churn": {}})})


@pytest.mark.parametrize("settings", [{"scale": -1}, {"decay": 1.0}, {"scale": float("nan")}])
def test_values_out_of_range(settings: dict) -> None:
    with pytest.raises(ValueError, match=f"churn.{next(iter(settings))}="):
        ChurnPenalty(**settings)
