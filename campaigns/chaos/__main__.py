"""The kill campaign: `python -m campaigns.chaos --kills 100`.

Runs of the real command `python -m tools.train` are ended with SIGKILL at random moments, every other one while a
checkpoint is being written, and continued by the same command until they finish. A kill has been survived when the
run's tables are the same bytes, its final state the same bits and its TensorBoard curves the same points as those of an
undisturbed run. Exit status 1 unless all were. With `--launcher ray` (or pool, submitit_local) the runs are trained by
that launcher, several beside one another, and its processes are killed.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from tools.command_line import UsageError
from tools.figures.table import markdown
from tools.launchers import make_launcher
from tools.parser import Parser

from .campaign import RUNS, Campaign, CampaignError, Kind
from .launched import Launched, campaign
from .process import warm_up


def main(arguments: list[str] | None = None) -> None:
    """Kill, compare, print the table."""
    parser = Parser(
        prog="python -m campaigns.chaos", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=100, help="how many in all (default: 100)")
    parser.add_argument("--runs", nargs="+", choices=list(RUNS), default=list(RUNS), help="which (default: all)")
    parser.add_argument("--launcher", choices=("pool", "ray", "submitit_local"), help="who trains the runs")
    parser.add_argument("--seed", type=int, default=0, help="of the moments; the clock has its say too (default: 0)")
    parser.add_argument(
        "--folder", type=Path, help="where the runs live; those that differ stay (default: a new temporary folder)"
    )
    chosen = parser.parse_args(arguments)
    if chosen.kills < 1:
        parser.error(f"--kills {chosen.kills}: at least 1")
    if chosen.folder is not None and chosen.folder.exists() and any(chosen.folder.iterdir()):
        parser.error(f"--folder {chosen.folder} is not empty: give a new one")
    folder = chosen.folder or Path(tempfile.mkdtemp(prefix="chaos-"))
    campaigns: Sequence[Kind]
    try:
        if chosen.launcher is None:
            warm_up()
            campaigns = run(chosen.kills, chosen.runs, chosen.seed, folder)
        else:
            campaigns = run_launched(chosen.launcher, chosen.kills, chosen.runs, chosen.seed, folder)
    except (CampaignError, UsageError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    survived = sum(one.count.survived for one in campaigns)
    print(f"\n{table(campaigns)}\n{survived} of {chosen.kills} identical")
    if survived != chosen.kills:
        print(f"what differs lies in {folder}", file=sys.stderr)
        raise SystemExit(1)
    if chosen.folder is None:
        shutil.rmtree(folder)


def run(kills: int, names: Sequence[str], seed: int, folder: Path) -> list[Campaign]:
    """The kinds of runs in turn, until there were that many kills."""
    draws = random.Random(seed)
    with tqdm(total=kills, unit="kill", desc="undisturbed runs") as bar:
        campaigns = [Campaign(name, folder, draws, bar.write) for name in names]
        bar.set_description("kills")
        bar.start_t = time.time()  # the time left is that of kills
        while bar.n < kills:
            one = campaigns[0] if bar.n == 0 else min(campaigns, key=lambda campaign: campaign.count.kills)
            for _ in one.round(kills - bar.n):
                bar.update(1)
    return campaigns


def run_launched(launcher: str, kills: int, names: Sequence[str], seed: int, folder: Path) -> list[Launched]:
    """All kinds of runs beside one another in a launcher's processes, until there were that many kills."""
    words = [f"hydra/launcher={launcher}"]
    if launcher == "submitit_local":
        words.append(f"hydra.launcher.folder={folder / 'jobs'}")
    with make_launcher(words) as launching, tqdm(total=kills, unit="kill", desc="undisturbed runs") as bar:
        kinds = [Launched(name, folder.absolute(), bar.write) for name in names]
        bar.set_description("kills")
        for done in campaign(launching, kinds, kills, random.Random(seed)):
            bar.update(done - bar.n)
    return kinds


def table(campaigns: Sequence[Kind]) -> str:
    """A row per kind of run."""
    rows = [
        [
            one.name,
            f"{one.seconds:.1f}" if one.seconds == one.seconds else "-",
            *(str(count) for count in (one.count.runs, one.count.kills, one.count.during_writes, one.count.survived)),
        ]
        for one in campaigns
    ]
    return markdown(["run", "seconds", "runs", "kills", "during a checkpoint's write", "survived"], rows)


if __name__ == "__main__":
    main()
