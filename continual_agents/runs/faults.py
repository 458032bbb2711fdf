"""What ends a run in flight and is nobody's mistake on the command line."""


class Fault(RuntimeError):
    """A run cannot go on; the message says why, what is safe and how to go on, in one line."""
