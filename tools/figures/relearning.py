"""How each setting recovers after a change of task."""

import numpy as np
import pandas as pd
import torch

from continual_agents import plasticity

from .comparison import Comparison
from .estimates import binned, nice_width
from .table import number

BINS_PER_TASK = 20
"""Records a task is cut into; single episodes are too noisy to say when a level is reached again."""


def relearning_rows(data: Comparison) -> list[dict[str, str]]:
    """One row per setting: drop, steps to recover, area lost; empty where no task has changed yet."""
    rows = []
    for setting in data.settings:
        episodes = data.episodes[data.episodes["setting"] == setting]
        found = [relearning_of(one) for _, one in episodes.groupby("replicate", sort=False)]
        drops = torch.cat([one.drop for one in found])
        if not len(drops):
            continue
        recovery = torch.cat([one.recovery for one in found])
        median = float(np.median(recovery.numpy()))
        rows.append(
            {
                "method": setting,
                "runs": str(len(found)),
                "changes": str(len(drops)),
                "drop": number(float(drops.mean())),
                "steps to 90%": number(median) if np.isfinite(median) else "never within the task",
                "recovered": f"{100 * float(recovery.isfinite().double().mean()):.0f}%",
                "area lost (return x steps)": f"{float(torch.cat([one.area for one in found]).mean()):.3g}",
            }
        )
    return rows


def relearning_of(episodes: pd.DataFrame) -> plasticity.Relearning:
    """Relearning of one run, from its episodes averaged over twentieths of a task.

    Args:
        episodes: columns `step`, `performance`, `task`, `replicate`.
    """
    known = episodes[episodes["performance"].notna()]
    ends = known.groupby("task")["step"].max()
    # of environments side by side one may end a task before another ends the task before it
    ends = ends[ends > ends.cummax().shift(fill_value=0)]
    if ends.empty:
        return plasticity.Relearning(*[torch.zeros(0, dtype=torch.float64)] * 4)
    width = nice_width(float(np.median(np.diff(ends, prepend=0.0))), BINS_PER_TASK)
    pieces, start = [], 0.0
    for task, end in ends.items():
        edges = start + np.arange(0.0, float(end) - start + width, width)
        values = binned(known[known["task"] == task], "performance", position="step", edges=edges)[0]
        pieces.append(pd.DataFrame({"task": task, "step": edges[1:], "value": values}).dropna())
        start = float(end)
    records = pd.concat(pieces)
    # the last bin of a task may reach past its end, into the next one's first
    records = records[records["step"].diff().fillna(1.0) > 0]
    return plasticity.relearning(
        torch.tensor(records["value"].to_numpy(float)),
        torch.tensor(records["task"].to_numpy(int)),
        torch.tensor(records["step"].to_numpy(float)),
    )
