"""What a method may do after a step: one row per operation, which is all that anybody asks about it."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from continual_agents import surgery

from .churn import ChurnPenalty
from .hare_and_tortoise import HareAndTortoise
from .l2_init import PullToInit
from .operation import AfterStep, Operation
from .parseval import ParsevalRegularization
from .perturb import Perturb
from .plasticity_injection import PlasticityInjection
from .projection import Projection
from .reset import Reset
from .soft_reset import SoftReset
from .spectral import SpectralRegularization
from .target import ModuleTarget
from .weight_clipping import WeightClipping


@dataclasses.dataclass(frozen=True)
class OperationRow:
    """One row.

    Attributes:
        make: constructor(target, **settings). A subclass of `Operation` acts on a stack as it does on a network.
        settings: whose keyword arguments the settings are, by name and type; None: those of `make`.
        per_run: settings in which the runs of one stack may differ.
        renews: whether it renews single units, whose share of the optimizer's step count then starts anew.
        own_schedule: whether it knows by itself when to act, and takes no `period` or `at_task`.
        restarts: whether it draws the whole network anew with these settings.
        penalises: whether it is a term of a policy's loss, which only some agents have.
    """

    make: Callable[..., AfterStep]
    settings: Callable[..., Any] | None = None
    per_run: tuple[str, ...] = ()
    renews: bool = False
    own_schedule: bool = False
    restarts: Callable[[Mapping[str, Any]], bool] = lambda settings: False
    penalises: bool = False

    @property
    def schemas(self) -> tuple[Callable[..., Any], ...]:
        """Whose keyword arguments the settings are."""
        own = self.settings or self.make
        return (own,) if self.own_schedule else (own, Operation.schedule)

    @property
    def stacks(self) -> bool:
        """Whether `make` serves a stack of runs as it is."""
        return isinstance(self.make, type) and issubclass(self.make, Operation)


def _churn(target: ModuleTarget, **settings: Any) -> AfterStep:
    return ChurnPenalty(**settings)


def _renewing(companion: Callable[..., AfterStep], *per_run: str, **defaults: Any) -> OperationRow:
    """The row of a companion of surgery, which looks after single units."""

    def make(target: ModuleTarget, **settings: Any) -> AfterStep:
        units = surgery.find(target.modules)
        return companion(units, target.optimizer, generator=target.generator, **{**defaults, **settings})

    return OperationRow(make, companion, per_run, renews=True, own_schedule=True)


OPERATIONS: dict[str, OperationRow] = {
    "continual_backprop": _renewing(surgery.ContinualBackprop, "rate", "maturity", "birth"),
    # Mahmood and Sutton 2012: the ancestor, worth by weight alone
    "generate_and_test": _renewing(surgery.ContinualBackprop, "rate", "maturity", "birth", **surgery.GENERATE_AND_TEST),
    "redo": _renewing(surgery.ReDo, "threshold", "birth"),
    "regrama": _renewing(surgery.ReGraMa, "threshold", "birth"),
    "self_normalized_resets": _renewing(surgery.SelfNormalizedResets),
    "perturb": OperationRow(Perturb, per_run=("noise", "shrink")),
    "l2_init": OperationRow(PullToInit, per_run=("strength",)),
    "hare_and_tortoise": OperationRow(HareAndTortoise, per_run=("rate",)),
    "parseval": OperationRow(ParsevalRegularization, per_run=("strength",)),
    "plasticity_injection": OperationRow(PlasticityInjection),
    "projection": OperationRow(Projection),
    "soft_reset": OperationRow(SoftReset, per_run=("shrink",)),
    "spectral": OperationRow(SpectralRegularization, per_run=("strength",)),
    "weight_clipping": OperationRow(WeightClipping, per_run=("bound",)),
    "churn": OperationRow(_churn, ChurnPenalty, own_schedule=True, penalises=True),
    "reset": OperationRow(Reset, restarts=lambda settings: settings.get("layers") == "all"),
}
"""Operations by name. A row of your own is added with `OPERATIONS[name] = OperationRow(...)`."""
