"""The kill campaign: `python -m tools.chaos`."""
