"""A sweep over settings of agents, in the form that streams have, so that one figure draws both."""

from __future__ import annotations

import pandas as pd

from .folders import RunFolder
from .tasks import task_ends
from .tidy import Stream, short_key, varied


def sweep_of_agents(runs: list[RunFolder]) -> Stream:
    """The ends of all tasks as records, and the settings that differ within a method as `parameters`.

    Args:
        runs: agents' runs of one experiment.
    """
    data = task_ends(runs)
    own = ["setting", "method", "seed"]
    # a method reads its experiment's constants: of one name, what counts is the method's, which is put last
    keys = sorted(data.runs.columns.difference(own, sort=False), key=lambda key: key.startswith("method."))
    table = data.runs[[*own, *keys]].rename(columns={key: short_key(key) for key in keys})
    table = table.loc[:, ~table.columns.duplicated(keep="last")].rename_axis("replicate").reset_index()
    table = table.map(lambda value: str(value) if isinstance(value, list) else value)
    parameters = varied(table)
    ends = data.ends.rename_axis(index="replicate", columns="task")
    records = ends.stack().rename("performance").reset_index()
    records["task"] += 1 - records["task"].min()  # people count tasks from 1
    records = records.merge(table[["replicate", *own[:2], *parameters]], on="replicate")
    return Stream(data.experiment, records, pd.DataFrame(table), data.settings, parameters, data.measure)
