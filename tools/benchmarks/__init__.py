"""Speed comparisons, one module each: `python -m tools.benchmark NAME`."""
