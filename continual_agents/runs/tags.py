"""What curves are called where people look at them, and what they mean, with units.

Tables keep the names that the loops give. TensorBoard sorts groups by name, so what a run is about, the return or the
accuracy, goes into the group `charts`, which comes first (as CleanRL has it).
"""

from collections.abc import Mapping
from typing import Any

from continual_agents.plasticity.measures import MEASURES

from .logger import known

CHARTS = {
    "return/mean": "charts/episodic_return",
    "reward/mean": "charts/reward_per_step",
    "task/friction": "charts/friction",
    "task/index": "charts/task",
    "optimizer/step_size": "charts/step_size",
    "return/episodes": "episode/number",
}
"""Names that are other in the loggers; a name without a group is a measure of a stream, `charts/NAME`."""

MEANINGS = {
    "return/mean": "mean return (sum of rewards) of the episodes that ended in this update",
    "reward/mean": "mean reward of the environment steps of this update",
    "return/episodes": "episodes that ended in this update",
    "episode/length": "mean length of the episodes that ended in this update, environment steps",
    "task/index": "number of the task, from 0; the mean over environments",
    "task/friction": "effective friction between ground and agent, without unit; the mean over environments",
    "optimizer/step_size": "step size (learning rate) of the optimizer",
    "optimizer/gradient_norm": "Euclidean norm of the gradient, mean over the update's gradient steps",
    "optimizer/update_norm": "Euclidean distance that all parameters moved in this update",
    "optimizer/skipped_steps": "gradient steps left out because a number was not finite",
    "optimizer/diverged": "fraction of runs whose weights are no longer finite",
    "loss/policy": "clipped policy objective, mean over the update's gradient steps",
    "loss/value": "squared error of the critic, mean over the update's gradient steps",
    "loss/explained_variance": "share of the variance of returns that the critic explains; 1 is all, 0 none",
    "policy/entropy": "entropy of the policy, nats",
    "policy/kl": "approximate KL divergence of the policy from that before the update, nats",
    "policy/clip_fraction": "fraction of samples whose probability ratio was clipped",
    "surgery/replaced": "units replaced so far",
    "surgery/eligible": "units old enough to be replaced now",
    "accuracy": "online accuracy over the row, a fraction; mean over the runs of a method",
    "online_accuracy": "online accuracy over the row, a fraction; mean over the runs of a method",
    "test_accuracy": "accuracy on the task's test images at its end, a fraction; mean over the runs of a method",
    "squared_error": "online squared error over the row; mean over the runs of a method",
    "error": "online error over the row; mean over the runs of a method",
    "loss": "online loss over the row; mean over the runs of a method",
    "time/frames_per_second": "environment steps a second, acting and learning together",
    "time/run_steps_per_second": "gradient steps a second, of all runs together",
    "glance/task": "0 or 1: jumps at every change of task",
    "glance/return": "mean return over its largest value so far",
}


def tag_of(name: str) -> str:
    """The tag of a metric."""
    return CHARTS.get(name, name if "/" in name else f"charts/{name}")


def is_of_a_layer(name: str) -> bool:
    """Whether the metric is one layer's: `plasticity/dead_units/actor.0`."""
    return name.count("/") >= 2


def drawn(values: Mapping[str, Any], *, layers: bool) -> dict[str, float]:
    """Tag -> value of what is known, without single layers unless `layers`."""
    return {tag_of(name): value for name, value in known(values).items() if layers or not is_of_a_layer(name)}


def meaning(name: str) -> str:
    """What a metric is, with its unit; "" for names that are not this project's."""
    base, _, layer = name.partition("/")[2].partition("/")
    group = name.partition("/")[0]
    if group == "plasticity" and base in MEASURES:
        row = MEASURES[base]
        unit = "fraction of units: " if row.of_units else ""
        text = f"{row.title.removesuffix(' (%)')}, {unit}{row.meaning}"
    elif name not in MEANINGS and group == "time":
        text = "seconds of this update"
    elif name not in MEANINGS and group == "glance":
        text = f"{base.replace('_', ' ')}, brought to a scale around 1"
    else:
        text = MEANINGS.get(f"{group}/{base}" if base else group, "")
    return f"{text}; layer {layer}" if text and layer else text
