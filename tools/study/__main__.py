"""A study in one command: `python -m tools.study configs/study/smoke.yaml [--folder DIR] [hydra.launcher.n_jobs=2]`.

Every candidate of every method runs on the tuning seeds; the best one of each method by the study's criterion is frozen
and runs on fresh seeds, which alone make figure and table. The same command continues a study that was stopped.
"""

if __name__ == "__main__":
    from tools.starting import stop_while_starting

    stop_while_starting()

from pathlib import Path

from continual_agents.runs import CheckpointError, RunError, steady_output
from tools.command_line import UsageError
from tools.launchers import make_launcher, split
from tools.parser import Parser

from .protocol import read_protocol
from .study import Study, StudyError


def main(arguments: list[str] | None = None) -> None:
    """The command; exit code 1 when runs failed, 2 when nothing could be begun, 128 + the signal that stopped it."""
    parser = Parser(prog="python -m tools.study", description=__doc__.split("\n")[0])
    parser.add_argument("study", type=Path, metavar="STUDY.yaml", help="configs/study/*.yaml are examples")
    parser.add_argument("--folder", type=Path, help="where all is written (default: the study's, or runs/study/NAME)")
    parser.add_argument(
        "launcher", nargs="*", metavar="hydra/launcher=NAME", help="who trains the runs, and hydra.launcher.KEY=VALUE"
    )
    given = parser.parse_intermixed_args(arguments)
    kinds = (ValueError, UsageError, RunError, CheckpointError, StudyError)
    with parser.refusing(*kinds, output=given.folder or given.study):
        launcher_words, others = split(given.launcher)
        if others:
            raise UsageError(f"{others[0]}: settings of the runs belong in {given.study}")
        protocol = read_protocol(given.study, folder=given.folder)
        with make_launcher(launcher_words) as launcher, Study(protocol, launcher) as study:
            code = study.run()
    raise SystemExit(code)


if __name__ == "__main__":
    steady_output()
    main()
