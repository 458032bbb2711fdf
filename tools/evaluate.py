"""What trained policies are worth: `python -m tools.evaluate RUN_FOLDER --episodes 20 --friction .02 .2 2`.

Table and figure of the returns, one row per run and ground: evaluation.csv and evaluation.png in the first run folder.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from tqdm import tqdm

from continual_agents.agents.evaluation import evaluate, load_policy
from continual_agents.runs import CheckpointError, RunError
from continual_agents.runs.checkpoint import write_bytes
from tools.agent import environment_from
from tools.figures.estimates import estimate_one
from tools.figures.folders import method_label
from tools.figures.style import save, style
from tools.parser import Parser
from tools.record import RecordError, configuration_of
from tools.text import cell, visible


def returns_of(
    folder: Path, frictions: Sequence[float | None], *, episodes: int, seed: int, sample: bool, environment: str | None
) -> list[dict[str, Any]]:
    """One row per ground.

    Raises:
        RecordError, RunError, ValueError: no such run, or an environment without friction.
    """
    config = configuration_of(folder, named=environment)
    try:
        settings = {**config["experiment"]["environment"], "count": 1}
        name, ground = settings["id"], settings["friction"]
        label = f"{method_label(config['method']['name'])}, seed {config['seed']}"
    except KeyError as error:
        raise RecordError(f"{folder}/config.yaml has no {error}: it is not the configuration of a run") from error
    except (TypeError, AttributeError) as error:
        raise RecordError(f"{folder}/config.yaml cannot be run: {error}") from error
    policy = load_policy(folder)
    rows = []
    for friction in frictions:
        if friction is not None:
            if ground is None:
                raise RecordError(f"{name} has no friction to set: leave out --friction")
            settings["friction"] = friction
        made = environment_from(settings)
        try:
            returns = evaluate(policy, made, episodes=episodes, seed=seed, sample=sample)
        finally:
            made.close()
        mean, low, high = estimate_one(np.array(returns))
        rows.append(
            {"run": str(folder), "setting": label, "step": policy.step, "friction": friction, "episodes": episodes}
            | {"return": mean, "low": low, "high": high}
        )
    return rows


def draw(table: pd.DataFrame, path: Path) -> Path:
    """Return against friction, or one bar per run where the ground has none."""
    with style():
        figure = Figure(figsize=(5.0, 3.2))
        axes = figure.subplots()
        for label, one in table.groupby("setting", sort=False):
            ground = one["friction"].notna().all()
            places = one["friction"].astype(float) if ground else [str(label)] * len(one)
            spread = np.abs(one[["low", "high"]].to_numpy().T - one["return"].to_numpy())
            # one episode has no interval: nan would hide its point
            axes.errorbar(places, one["return"], yerr=np.nan_to_num(spread), marker="o", capsize=2, label=str(label))
            if ground:
                axes.set_xscale("log")
                axes.set_xlabel("friction")
        axes.set_title("return per episode, mean and 95% interval over episodes", loc="left")
        axes.legend()
        figure.tight_layout()
        return save(figure, path)


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = Parser(prog="python -m tools.evaluate", description=__doc__.split("\n")[0])
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN_FOLDER", help="reinforcement learning runs")
    parser.add_argument("--episodes", type=int, default=20, help="per run and ground (default: 20)")
    parser.add_argument("--friction", type=float, nargs="+", help="grounds (default: as the run's configuration says)")
    parser.add_argument("--environment", help="gymnasium id instead of the run's, as mypackage:Mine-v0")
    parser.add_argument("--seed", type=int, default=0, help="of the episodes (default: 0)")
    parser.add_argument("--sample", action="store_true", help="draw actions as in training instead of the mean action")
    parser.add_argument("--output", type=Path, help="a .png (default: evaluation.png in the first run folder)")
    given = parser.parse_args(arguments)
    if given.episodes < 1:
        parser.error(f"--episodes={given.episodes}: at least 1")
    output = given.output or given.runs[0] / "evaluation.png"
    rows: list[dict[str, Any]] = []
    kinds = (RecordError, RunError, CheckpointError, ValueError, gymnasium.error.Error)
    with parser.refusing(*kinds, output=output):
        for folder in tqdm(given.runs, unit="runs", desc="evaluating", disable=len(given.runs) == 1):
            rows += returns_of(
                folder, given.friction or [None], episodes=given.episodes, seed=given.seed, sample=given.sample,
                environment=given.environment,
            )  # fmt: skip
        table = pd.DataFrame(rows)
        write_bytes(output.with_suffix(".csv"), table.map(cell).to_csv(index=False).encode())
        drawn = draw(table, output)
    columns = ["setting", "step", *(["friction"] if given.friction else []), "episodes", "return", "low", "high"]
    shown = table[columns].to_string(index=False, float_format=lambda value: f"{value:.4g}")
    print(visible(f"{shown}\nfigure: {drawn}"))


if __name__ == "__main__":
    main()
