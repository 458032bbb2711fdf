"""Run folders with made-up numbers, in the layout that training writes."""

from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from tools.figures.folders import by_experiment, read_folders
from tools.figures.table import make_table, rows_of

LAYERS = ("actor.0", "actor.2", "critic.0", "critic.2")


def agent_run(
    folder: Path, *, method: str = "ppo", seed: int = 0, steps: int = 409_600, change: int = 100_000,
    decay: float = 0.0, frictions: str = "seed", **config,
) -> Path:  # fmt: skip
    """A reinforcement learning run whose return rises within a task to a height that falls by `decay` per task."""
    rng = np.random.default_rng([seed, len(method)])
    ground = np.random.default_rng([seed if frictions == "seed" else 0, 99])
    folder.mkdir(parents=True)
    friction = [1.2, *np.exp(ground.uniform(np.log(0.02), np.log(2.0), steps // change + 1))]
    rows, step, start, task = [], 0, 0, 0
    while step < steps:
        if step >= (task + 1) * change:
            task, start = task + 1, step
        length = int(min(1000, 120 + step / 200 + rng.integers(0, 100)))
        step += length
        height = 1500 * (1 - decay * task) * (1 - np.exp(-(step - start) / (0.4 * change)))
        rows.append((step, height + rng.normal(0, 120), length, friction[task], task))
    episodes = pd.DataFrame(rows, columns=["step", "return", "length", "friction", "task"])
    episodes.to_csv(folder / "episodes.csv", index=False)
    _agent_metrics(episodes, steps, decay, rng).to_csv(folder / "metrics.csv", index=False)
    whole = {
        "experiment": {"name": "slippery_ant", "kind": "agent", "steps": steps},
        "method": {"name": method, "optimizer": {"kind": "adam", "step_size": 3e-4}},
        "seed": seed,
        "scale": "demo",
        "folder": str(folder),
        **config,
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(whole, sort_keys=False))
    return folder


def _agent_metrics(episodes: pd.DataFrame, steps: int, decay: float, rng: np.random.Generator) -> pd.DataFrame:
    rows = []
    for update, step in enumerate(range(2048, steps + 1, 2048)):
        recent = episodes[(episodes["step"] <= step) & (episodes["step"] > step - 2048)]
        last = episodes[episodes["step"] <= step].tail(1)
        row = {
            "step": step,
            "return/mean": recent["return"].mean(),
            "task/friction": last["friction"].iloc[0] if len(last) else 1.2,
            "task/index": last["task"].iloc[0] if len(last) else 0,
        }
        probed = update % 4 == 0
        share = step / steps
        row["plasticity/dead_units"] = min(1.0, 0.02 + 2 * decay * share + rng.uniform(0, 0.01)) if probed else np.nan
        row["plasticity/effective_rank"] = 90 * (1 - 2 * decay * share) + rng.normal() if probed else np.nan
        row["plasticity/weight_magnitude"] = 0.04 + 0.05 * share if probed else np.nan
        rows.append(row)
    return pd.DataFrame(rows)


def stream_run(
    folder: Path, *, method: str = "backprop", seeds: int = 5, tasks: int = 40, loss: float = 0.0,
    step_sizes: tuple[float, ...] = (0.01,), measure: str = "accuracy", **config,
) -> Path:  # fmt: skip
    """A stack of `seeds` x `step_sizes` runs: accuracy starts at .77 and falls by `loss` * step size / .01 a task."""
    rng = np.random.default_rng(len(method))
    folder.mkdir(parents=True)
    runs = pd.DataFrame(
        [(number, seed, size) for number, (size, seed) in enumerate((z, s) for z in step_sizes for s in range(seeds))],
        columns=["run", "seed", "step_size"],
    )
    rows = []
    for task in range(tasks):
        for one in runs.itertuples():
            fall = loss * task * one.step_size / 0.01
            accuracy = 0.77 - fall + 0.005 * one.seed + rng.normal(0, 0.002)
            row = {"step": (task + 1) * 1797, "run": one.run, "task/index": task}
            row[measure] = accuracy if measure == "accuracy" else 1 - accuracy
            row["plasticity/dead_units"] = min(1.0, 2 * fall)
            row["plasticity/weight_magnitude"] = 0.1 + fall
            row["plasticity/effective_rank"] = 12 - 10 * fall
            rows.append(row)
    pd.DataFrame(rows).to_csv(folder / "metrics.csv", index=False)
    runs.to_csv(folder / "runs.csv", index=False)
    whole = {
        "experiment": {"name": "permuted_digits", "kind": "stream", "tasks": tasks},
        "method": {"name": method, "optimizer": {"kind": "sgd", "step_size": list(step_sizes)}},
        "seed": list(range(seeds)),
        **config,
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(whole, sort_keys=False))
    return folder


def levels_run(
    folder: Path, levels: list[float], *, method: str = "ppo", seed: int = 0, step_size: float = 1e-3, **experiment
) -> Path:  # fmt: skip
    """An agent's run, ten episodes of 100 steps a task: `levels[k]` in the last quarter of task k, 50 less before."""
    folder.mkdir(parents=True)
    rows = [
        (1000 * task + 100 * k, level - 50 * (k < 8), 100, 0.5 + task, task)
        for task, level in enumerate(levels)
        for k in range(1, 11)
    ]
    episodes = pd.DataFrame(rows, columns=["step", "return", "length", "friction", "task"])
    episodes.to_csv(folder / "episodes.csv", index=False)
    metrics = episodes.rename(columns={"return": "return/mean", "task": "task/index"}).drop(columns="length")
    metrics.to_csv(folder / "metrics.csv", index=False)
    whole = {
        "method": {"name": method, "optimizer": {"step_size": step_size}},
        "experiment": {"name": "mine", "kind": "agent", "environment": {"id": "Mine-v0"}, **experiment},
        "seed": seed,
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(whole, sort_keys=False))  # the order that runs write
    return folder


def summary_table(folders: list[Path]) -> pd.DataFrame:
    """The table that `tools.plot` writes of these folders, without its figures."""
    return make_table([row for runs in by_experiment(read_folders(folders)).values() for row in rows_of(runs)])
