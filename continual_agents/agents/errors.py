"""What can go wrong while learning."""

from continual_agents.runs import Fault


class NotFiniteError(FloatingPointError):
    """An observation, a loss or a gradient became NaN or infinite."""


class EnvironmentFault(Fault):
    """The environment raised an error, or a process of it has died."""
