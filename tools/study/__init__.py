"""Studies: search settings on some seeds, freeze them, measure on others."""
