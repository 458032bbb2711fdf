"""The slippery walkers in TorchRL's own hands: specs, info readers, processes, pixels."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torchrl.data import Unbounded
from torchrl.envs import GymEnv, ParallelEnv, check_env_specs
from torchrl.envs.libs.gym import default_info_dict_reader

import envs

SPECS = {"friction": Unbounded((), dtype=torch.float64), "task": Unbounded((), dtype=torch.int64)}
READERS: dict[str, Callable[[Any], Any]] = {
    "automatic": lambda env: env.auto_register_info_dict(),
    "every key": lambda env: env.set_info_dict_reader(default_info_dict_reader()),
    "keys with specs": lambda env: env.set_info_dict_reader(default_info_dict_reader(list(SPECS), spec=SPECS)),
}


@pytest.mark.parametrize("reader", READERS)
def test_friction_and_task_stand_in_the_tensordict(reader: str) -> None:
    env = READERS[reader](GymEnv("SlipperyAnt-v0"))
    env.set_seed(3)
    batch = env.rollout(4)
    check_env_specs(env)
    expected = envs.SlipperyAnt()
    expected.reset(seed=3)
    for where in (batch["next"], *([batch] if reader != "every key" else [])):
        assert where["task"].tolist() == [0] * 4
        assert where["friction"].tolist() == [expected.friction] * 4
    env.close()
    expected.close()


@pytest.mark.slow  # each process imports torch and TorchRL anew
def test_processes() -> None:
    # gymnasium imports what stands before the colon, in the new process too
    parallel = ParallelEnv(2, functools.partial(GymEnv, "envs:SlipperyAnt-v0"), mp_start_method="spawn")
    try:
        batch = parallel.rollout(3)
        assert batch["next", "observation"].shape == (2, 3, 28)
        assert not torch.equal(batch["observation"][0], batch["observation"][1])
    finally:
        parallel.close()


def test_pixels() -> None:
    seen = GymEnv("SlipperyAnt-v0", from_pixels=True)
    check_env_specs(seen)
    assert seen.rollout(2)["pixels"].shape == (2, 240, 320, 3)
    seen.close()
