"""Where environments and commands lie: beside the library in a checkout, inside of it in an installed wheel.

The library knows none of them; this is for gymnasium and the `continual-agents` command, who ask for them by name.
"""

import importlib
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

HERE = Path(__file__).resolve().parent


def room(name: str) -> str:
    """The module that `envs` or `tools` is here; empty where the library came alone.

    A user's own module of that name is not meant: it must lie where this project's lies.
    """
    inside = f"{__package__}.{name}"
    if (HERE / name / "__init__.py").exists():
        return inside
    found = PathFinder.find_spec(name)
    beside = HERE.parent / name / "__init__.py"
    return name if found is not None and found.origin and Path(found.origin).resolve() == beside else ""


def offer_environments() -> None:
    """Register the walkers with gymnasium now, or as soon as somebody imports it.

    So that `gymnasium.make("continual_agents:SlipperyAnt-v0")` works whichever was imported first, and nobody who came
    for surgery alone loads gymnasium. That call only imports `continual_agents`, and gymnasium has no entry points.
    """
    if "gymnasium" in sys.modules:
        _register()
    else:
        sys.meta_path.insert(0, _Waiting())


def _register() -> None:
    if name := room("envs"):
        importlib.import_module(name)


class _Waiting:
    """Finds gymnasium as Python does, and registers once it is loaded."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != "gymnasium":
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is None or spec.loader is None:
            return spec
        load = spec.loader.exec_module

        def load_and_register(module: ModuleType) -> None:
            load(module)
            if self in sys.meta_path:
                sys.meta_path.remove(self)
                _register()

        spec.loader.exec_module = load_and_register  # type: ignore[method-assign]
        return spec
