"""What keeps a run from starting, and what ends one in flight."""


class RunError(RuntimeError):
    """The folder cannot be used for this run; the message says why and what to do."""


class Fault(RuntimeError):
    """A run cannot go on, by nobody's mistake on the command line; the message says why, what is safe, how to go on."""
