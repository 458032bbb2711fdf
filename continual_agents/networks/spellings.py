"""Names that ingredients had before agents and streams shared one vocabulary; they are still read, with a note."""

import warnings

FORMER = {"swish": "silu", "layer": "layer_norm", "online": "online_norm"}


def current(key: str, name: str) -> str:
    """The present name of an ingredient."""
    if name not in FORMER:
        return name
    warnings.warn(f"{key}={name} is called {FORMER[name]} now", stacklevel=3)
    return FORMER[name]
