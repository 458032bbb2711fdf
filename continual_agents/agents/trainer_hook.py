"""Surgery under TorchRL's own Trainer: a hook that registers, steps, logs and is saved as TorchRL's hooks are."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tensordict import TensorDictBase
from torchrl.trainers import Trainer, TrainerHookBase

from continual_agents.methods import AfterStep
from continual_agents.plasticity import Probe

from .training import surgery_report


def observation(batch: TensorDictBase) -> Any:
    """What the probe reads of a collected batch unless told otherwise."""
    return batch["observation"]


class SurgeryHook(TrainerHookBase):
    """Looks after units following every optimizer step of a `torchrl.trainers.Trainer`, and logs how they are.

    The companion's `step()` runs at the stage `post_optim`. Stages keep the order of registration: register this hook
    before a target updater's, so that targets follow surgery as they follow the gradient step. Where a stepper
    accumulates gradients, only the last of the passes before a step counts.

    Args:
        companion: made on the networks that the loss trains and on the Trainer's optimizer; or several. Anything with
            `step`, `state_dict`, `load_state_dict` and `report` will do, so every method's operation.
        probe: looks at the networks on what was collected.
        interval: collected batches between two looks (report and probe); the Trainer's own `log_interval`, in frames,
            decides which of them are written.
        probe_inputs: collected batch -> what the probe is called with.

    Raises:
        ValueError: an interval below 1.
        TypeError: a companion without one of the four methods.

    Example:
        >>> SurgeryHook(cbp, Probe(actor_net)).register(trainer)
    """

    def __init__(
        self,
        companion: AfterStep | Sequence[AfterStep],
        probe: Probe | None = None,
        *,
        interval: int = 10,
        probe_inputs: Callable[[TensorDictBase], Any] = observation,
    ) -> None:
        if interval < 1:
            raise ValueError(f"interval={interval}: a number of collected batches is at least 1")
        self.companions = list(companion) if isinstance(companion, Sequence) else [companion]
        for one in self.companions:
            missing = [name for name in ("step", "state_dict", "load_state_dict", "report") if not hasattr(one, name)]
            if missing:
                raise TypeError(f"SurgeryHook wants companions, {type(one).__name__} has no {missing[0]}()")
        self.probe, self.interval, self.probe_inputs = probe, interval, probe_inputs
        self.batches = 0

    def register(self, trainer: Trainer, name: str = "surgery") -> None:
        """Step after every optimizer step, log after every `interval` batches, be part of the Trainer's state."""
        trainer.register_module(name, self)
        trainer.register_op("post_optim", self.step)
        trainer.register_op("post_steps_log", self.look)

    def step(self) -> None:
        """After an optimizer step."""
        for companion in self.companions:
            companion.step()

    def look(self, batch: TensorDictBase | None) -> dict[str, float] | None:
        """After a collected batch: numbers for the Trainer's logger, now and then.

        Args:
            batch: as collected; None (asynchronous collection): there is nothing to probe.
        """
        self.batches += 1
        if self.batches % self.interval:
            return None
        numbers = surgery_report(self.companions)
        if self.probe is not None and batch is not None:
            numbers |= self.probe(self.probe_inputs(batch))
        return numbers

    def state_dict(self) -> dict[str, Any]:
        """The companions' states; the networks and the optimizer are the Trainer's to save."""
        states = {str(i): companion.state_dict() for i, companion in enumerate(self.companions)}
        return {"batches": self.batches, "companions": states}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict()`.

        Raises:
            ValueError: the state is of another number of companions, or of other layers.
        """
        stored = state["companions"]
        if len(stored) != len(self.companions):
            raise ValueError(f"this state is of {len(stored)} companions, SurgeryHook has {len(self.companions)}")
        self.batches = int(state["batches"])
        for i, companion in enumerate(self.companions):
            companion.load_state_dict(stored[str(i)])
