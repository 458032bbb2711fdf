"""The command `continual-agents`, and `python -m continual_agents`."""

import importlib

from .rooms import room


def main() -> None:
    """Hand over to the commands, which lie beside the library or in it."""
    importlib.import_module(f"{room('tools')}.commands").main()


if __name__ == "__main__":
    main()
