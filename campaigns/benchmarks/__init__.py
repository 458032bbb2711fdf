"""Speed comparisons, one module each: `python -m campaigns.benchmark NAME`."""
