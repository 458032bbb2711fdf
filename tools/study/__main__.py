"""A study in one command: `python -m tools.study configs/study/smoke.yaml [--workers 2] [--folder runs/study/mine]`.

Every candidate of every method runs on the tuning seeds; the best one of each method by the study's criterion is frozen
and runs on fresh seeds, which alone make figure and table. The same command continues a study that was stopped.
"""

from __future__ import annotations

import os
from pathlib import Path

from continual_agents.runs import CheckpointError, RunError, steady_output
from tools.command_line import UsageError
from tools.parser import Parser, unwritable
from tools.pool import cores

from .protocol import read_protocol
from .study import Study, StudyError


def main(arguments: list[str] | None = None) -> None:
    """The command; exit code 1 when runs failed, 2 when nothing could be begun, 130 when it was stopped."""
    parser = Parser(prog="python -m tools.study", description=__doc__.split("\n")[0])
    parser.add_argument("study", type=Path, metavar="STUDY.yaml", help="configs/study/*.yaml are examples")
    parser.add_argument("--workers", type=int, help="processes at a time (default: the study's, or one per core)")
    parser.add_argument("--folder", type=Path, help="where all is written (default: the study's, or runs/study/NAME)")
    given = parser.parse_args(arguments)
    try:
        protocol = read_protocol(given.study, folder=given.folder, workers=given.workers)
        # before any worker starts: one core each
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        with Study(protocol, workers=protocol.workers or cores()) as study:
            code = study.run()
    except (ValueError, UsageError, RunError, CheckpointError, StudyError) as error:
        parser.error(str(error))
    except OSError as error:
        parser.error(unwritable(error, given.folder or given.study))
    raise SystemExit(code)


if __name__ == "__main__":
    steady_output()
    main()
