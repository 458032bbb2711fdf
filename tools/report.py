"""One self-contained page about some runs: `python -m tools.report runs/slippery_ant/demo [--output report.html]`.

What was run, with which versions on which machine; the figures; published beside measured numbers; and a plain sentence
per method about its plasticity. The page loads nothing from anywhere.
"""

import base64
import tempfile
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

import yaml

from continual_agents.runs.checkpoint import write_bytes
from continual_agents.runs.provenance import read_sessions
from tools.figures.comparison import compare
from tools.figures.folders import FolderError, RunFolder, by_experiment, read_folders, setting_labels
from tools.figures.fresh import difference
from tools.figures.published import Published, beside
from tools.figures.relearning import relearning_rows
from tools.figures.sentences import sentence
from tools.figures.table import interval, make_table, number, readable_columns, rows_of
from tools.figures.tasks import TaskEnds, task_ends
from tools.figures.tidy import tidy
from tools.parser import Parser, above
from tools.plot import figures_of
from tools.text import visible, visible_everywhere

STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1a1a1a}
img{width:46rem;max-width:100%;height:auto;display:block;margin:1rem 0}
.scroll{overflow-x:auto}
table{border-collapse:collapse;font-size:.85rem;font-variant-numeric:tabular-nums}
th,td{padding:.3rem .7rem;border-bottom:1px solid #ddd;text-align:left;vertical-align:top}
th{border-bottom:2px solid #888}
td.note{color:#a33}
pre{background:#f5f5f5;padding:.7rem;overflow-x:auto;font-size:.8rem}
summary{cursor:pointer}
h2{margin-top:2.5rem;border-top:1px solid #ddd;padding-top:1rem}
"""


STATISTICS = (
    "Minus fresh: {measure} in the last quarter of each task, minus that of a fresh network with the same seed and "
    "task, averaged over the tasks after the first; 95% t-interval over seeds. A method has lost plasticity where the "
    "interval is on the worse side of 0. First task, last task, change: means over runs, bootstrapped 95% intervals, "
    "which are too narrow over fewer than ten runs. Tasks differ in difficulty: a change is a loss of plasticity only "
    "beside a fresh network. All tasks: interquartile mean over runs and tasks, with a bootstrap stratified by task."
)


PAIRED = (
    "Row minus column at the ends of the tasks after the first, run by run on the same seed and task: mean over tasks "
    "and seeds, 95% t-interval over seeds, number of pairs. Of many intervals a few exclude 0 by chance."
)


MOST_COLUMNS = 8
"""Methods that are a column each; with more of them, the last in the figures' order, the fresh network among them."""


def write_report(folders: Iterable[Path | str], output: Path | str) -> Path:
    """Write the page about all runs below `folders` to `output`.

    Raises:
        FolderError: no run to be found.
    """
    experiments = by_experiment(read_folders(folders))
    body = "\n".join(_experiment(name, runs) for name, runs in experiments.items())
    title = f"Plasticity report: {', '.join(experiments)}"
    page = (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head>\n'
        f"<body><h1>{escape(title)}</h1>\n{body}\n</body></html>\n"
    )
    output = Path(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(output, page.encode())
    return output


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = Parser(prog="python -m tools.report", description=__doc__.split("\n")[0])
    parser.add_argument("runs", nargs="+", metavar="RUN_FOLDER", help="run folders, or folders that hold some")
    parser.add_argument("--output", type=Path, help="the page (default: report.html in the folder above all the runs)")
    given = parser.parse_args(arguments)
    output = given.output or above(given.runs) / "report.html"
    with parser.refusing(FolderError, output=output):
        print(visible(str(write_report(given.runs, output))))


def _experiment(name: str, runs: list[RunFolder]) -> str:
    """The section about one experiment."""
    stream = runs[0].is_stream
    data = tidy(runs) if stream else compare(runs)
    ends = task_ends(runs)
    table = make_table(rows_of(runs))
    sentences = "".join(f"<li>{escape(sentence(row))}</li>" for row in table.to_dict("records"))
    columns = readable_columns(table)
    del columns["experiment"]
    with tempfile.TemporaryDirectory() as folder:
        figures = [_image(path, text) for path, text in figures_of(runs, Path(folder) / "figure.png").items()]
    parts = [
        f"<h2>{escape(name)}</h2>",
        f"<ul>{sentences}</ul>",
        *figures,
        "<h3>Against a fresh network, and first tasks against last tasks</h3>",
        _table(list(columns), list(zip(*columns.values(), strict=True))),
        f"<p>{STATISTICS.format(measure=escape(str(table['measure'].iloc[0]).replace('_', ' ')))}</p>",
    ]
    headings, pairs = paired_table(ends)
    if pairs:
        parts += ["<h3>Paired differences</h3>", _table(headings, pairs), f"<p>{PAIRED}</p>"]
    if not stream:
        parts += ["<h3>Relearning after each change</h3>", _relearning(runs)]
    published = beside(data)
    if published is not None and published.rows:
        parts += ["<h3>Published and measured</h3>", _published(published)]
    return "\n".join([*parts, "<h3>What was run</h3>", _what_was_run(runs)])


def _image(path: Path, text: str) -> str:
    content = base64.b64encode(path.with_suffix(".svg").read_bytes()).decode()
    return f'<img alt="{escape(text)}" src="data:image/svg+xml;base64,{content}">'


def paired_table(data: TaskEnds) -> tuple[list[str], list[list[str]]]:
    """Headings and rows: a row per setting, a column per method that it is held against, "mean [interval] (pairs)".

    Without two methods there are no rows.
    """
    methods = list(dict.fromkeys(setting.split(", ")[0] for setting in data.settings))
    if len(methods) < 2:
        return [], []
    references = methods[::-1][:MOST_COLUMNS]  # the fresh network is the last one
    rows = [[setting, *(_pair(data, setting, reference) for reference in references)] for setting in data.settings]
    return ["method", *(f"minus {reference}" for reference in references)], rows


def _pair(data: TaskEnds, setting: str, reference: str) -> str:
    if setting.split(", ")[0] == reference:
        return ""
    found = difference(data, setting, reference)
    if not found.n:
        return found.missing
    return f"{interval(found.value, found.low, found.high)} ({found.n})"


def _relearning(runs: list[RunFolder]) -> str:
    rows = relearning_rows(compare(runs))
    if not rows:
        return "<p>The task has not changed yet.</p>"
    text = (
        "<p>Per change of task, over changes and runs: the mean drop in return, the steps until the return is back "
        "at 90% of its earlier level (median; never counts as infinite), and the mean area "
        "between the earlier level and the curve.</p>"
    )
    return text + _table(list(rows[0]), [list(row.values()) for row in rows])


def _published(published: Published) -> str:
    rows = [
        [row.method, row.where, number(row.published), number(row.measured), str(row.n),
         interval(row.measured, row.low, row.high, ends_only=True), row.note]
        for row in published.rows
    ]  # fmt: skip
    source = f"<p>{escape(published.title)}. Published: {escape(published.source)}, read off plots.</p>"
    return source + _table(["method", "where", "published", "measured", "n", "interval", "note"], rows, note=6)


def _what_was_run(runs: list[RunFolder]) -> str:
    labels = setting_labels(runs)
    sessions = [_session(run) for run in runs]
    rows = [
        [
            label,
            str(run.config.get("seed", "")),
            f"{int(run.metrics['step'].max()):,}",
            visible(str(run.path)),
            *session[2:],
        ]
        for label, run, session in zip(labels, runs, sessions, strict=True)
    ]
    table = _table(["method", "seed", "steps", "folder", "code", "started"], rows)
    places = dict.fromkeys((machine, versions) for versions, machine, *_ in sessions)  # most often there is one
    table += "".join(f"<p>On {escape(machine)}: {escape(versions)}.</p>" for machine, versions in places)
    configs = "".join(
        f"<details><summary>{escape(visible(str(run.path)))}</summary>"
        f"<pre>{escape(yaml.safe_dump(run.config, sort_keys=False, allow_unicode=True))}</pre></details>"
        for run in runs
    )
    return f"{table}<h4>Configurations</h4>{configs}"


def _session(run: RunFolder) -> list[str]:
    """Versions, machine, code state and start of a run's latest session."""
    try:
        sessions = read_sessions(run.path / "environment.json")
    except ValueError:  # changed or damaged; the numbers are elsewhere
        return ["unreadable"] * 4
    if not sessions:
        return ["unknown"] * 4
    session = visible_everywhere(sessions[-1])
    versions = {"python": session.get("python"), **(session.get("packages") or {})}
    machine = session.get("machine") or {}
    hardware = f"{machine.get('processor')}, {machine.get('cores')} cores" + (
        f", {machine['gpu']}" if machine.get("gpu") else ""
    )
    git = session.get("git") or {}
    code = f"{str(git.get('commit', 'unknown'))[:10]}{' with local changes' if git.get('dirty') else ''}"
    text = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    return [text, hardware, code, str(session.get("time", "unknown"))]


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]], *, note: int | None = None) -> str:
    head = "".join(f"<th>{escape(str(heading))}</th>" for heading in headings)
    lines = []
    for row in rows:
        cells = [f"<td{' class=note' if k == note else ''}>{escape(str(cell))}</td>" for k, cell in enumerate(row)]
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'


if __name__ == "__main__":
    main()
