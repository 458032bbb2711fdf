"""Speed comparisons: `python -m campaigns.benchmark NAME`. A and B in turn in one run; ratios are printed."""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import sys

from campaigns import benchmarks
from tools.parser import Parser


def names() -> list[str]:
    """The benchmarks there are: modules of campaigns/benchmarks with a `main(arguments)`."""
    return sorted(
        module.name for module in pkgutil.iter_modules(benchmarks.__path__) if not module.name.startswith("_")
    )


def main(arguments: list[str] | None = None) -> None:
    """Run one benchmark; what follows its name goes to it."""
    parser = Parser(prog="python -m campaigns.benchmark", description=__doc__)
    parser.add_argument("name", choices=names(), help="what to measure")
    parser.add_argument("rest", nargs=argparse.REMAINDER, help="options of that benchmark (try --help)")
    chosen = parser.parse_args(arguments)
    importlib.import_module(f"campaigns.benchmarks.{chosen.name}").main(chosen.rest)


if __name__ == "__main__":
    main(sys.argv[1:])
