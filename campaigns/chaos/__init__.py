"""The kill campaign: `python -m campaigns.chaos`."""
