"""Every stream of random numbers of every run is its own: weights, minibatches, surgery, actions, environments."""

from pathlib import Path

import numpy as np
import pytest
import torch

from continual_agents.agents.draws import Draw, generator_of, member_seeds
from tests.agents.test_evaluation import KINDS
from tools.agent import AgentJob
from tools.command_line import compose_config, plain_config

SEEDS = (0, 1, 2, 1_000, 1_001, 1_002, 4_294_967_295)
"""With `1000 seed + purpose`, the weights of seed 1 came from the stream of the actions of seed 1001."""


def first_words(job: AgentJob) -> list[tuple[float, ...]]:
    """The next numbers of each generator that a run owns, and the weights its first one gave."""
    learner = job.learner
    owned = [learner.generator, job.collector.generator, *(operation.generator for operation in learner.operations)]  # type: ignore[attr-defined]
    bound = next(iter(learner.networks.bodies.values()))[0].weight  # type: ignore[index]
    drawn = [torch.rand(4, generator=generator) for generator in owned]
    # the weights' own numbers, back on [0, 1)
    return [tuple(one.tolist()) for one in (*drawn, (bound.flatten()[:4] / (2 * (3 / bound.shape[1]) ** 0.5) + 0.5))]


@pytest.mark.parametrize("kind", KINDS)
def test_runs_of_different_seeds_share_no_stream(tmp_path: Path, kind: str) -> None:
    words = [*(word for word in KINDS[kind] if not word.startswith("method")), "method=continual_backprop"]
    seen = []
    for seed in SEEDS:
        config = plain_config(compose_config(["scale=smoke", f"folder={tmp_path}", f"seed={seed}", *words]))
        job = AgentJob(config)
        seen += [tuple(round(number, 5) for number in one) for one in first_words(job)]
        job.close()
    assert len(seen) == 4 * len(SEEDS)
    assert len(set(seen)) == len(seen)


def test_thousands_of_streams_are_all_different() -> None:
    words = {generator_of(seed, what).initial_seed() for seed in range(2_000) for what in Draw}
    assert len(words) == 8_000
    members = [seed for run in range(2_000) for seed in member_seeds(run, 4)]
    assert len(set(members) | words) == 16_000


def test_a_generator_is_the_child_of_its_seed_by_hand() -> None:
    child = np.random.SeedSequence(7).spawn(3)[2].spawn(1)[0]
    assert generator_of(7, Draw.OPERATIONS).initial_seed() == child.generate_state(1)[0]
