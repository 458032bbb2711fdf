"""Command-line tools of the checkout: training, figures, benchmarks."""
