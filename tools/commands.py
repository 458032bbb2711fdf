"""The command `continual-agents NAME ...`: what `python -m tools.NAME ...` is in a checkout."""

import difflib
import runpy
import sys

COMMANDS = {
    "train": "train a network on a stream of changing tasks; --help lists experiments, methods and settings",
    "plot": "figures and a table from run folders",
    "report": "one HTML page about some runs, published figures beside measured ones",
    "evaluate": "what trained policies are worth, also on other ground",
    "record": "a video of a trained policy",
    "diagnose": "dead units and ranks of a run, or of any checkpoint",
    "study": "search settings, freeze the best, measure on fresh seeds",
    "join": "shards of a stream's runs as one folder",
    "prepare_data": "turn downloaded images into what the streams read",
}


def main() -> None:
    """Run the command that the first word names, with the others as its own."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("-h", "--help"):
        width = max(map(len, COMMANDS)) + 2
        print("usage: continual-agents COMMAND ...; each has its own --help\n")
        print("\n".join(f"  {command:{width}}{what}" for command, what in COMMANDS.items()))
        return
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        known = f"did you mean {near[0]}?" if near else f"there are {', '.join(COMMANDS)}"
        print(f"error: {name!r} is no command; {known}", file=sys.stderr)
        raise SystemExit(2)
    del sys.argv[1]
    runpy.run_module(f"{__package__}.{name}", run_name="__main__", alter_sys=True)
