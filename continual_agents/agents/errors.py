"""What can go wrong while learning."""


class NotFiniteError(FloatingPointError):
    """An observation, a loss or a gradient became NaN or infinite."""
