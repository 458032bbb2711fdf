import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pandas as pd
import pytest
import yaml

from tests.helpers import ended, photographed
from tests.tools.made_up import agent_run, stream_run
from tools import report
from tools.figures import comparison, folders, published, relearning, sentences, tidy

SESSION = {
    "step": 0, "time": "2026-01-02T03:04:05+0000", "python": "3.11.9", "packages": {"torch": "2.13.0", "torchrl": None},
    "machine": {"processor": "A <fast> one", "cores": 2, "gpu": None},
    "git": {"commit": "abcdef0123456", "dirty": True},
}  # fmt: skip


class Page(HTMLParser):
    """Tags, visible words and every address the page would load."""

    def __init__(self, text):
        super().__init__()
        self.open, self.words, self.addresses, self.tables = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        if tag not in ("img", "meta"):
            self.open.append(tag)
        self.addresses += [value for key, value in attributes if key in ("src", "href")]
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)
        if self.open and self.open[-1] in ("td", "th"):
            self.tables[-1][-1][-1] += data


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    for method, decay in (("ppo", 0.2), ("continual_backprop", 0.0), ("l2", 0.1)):
        for seed in range(5):
            folder = agent_run(root / "ant" / method / f"{seed}", method=method, seed=seed, decay=decay, steps=200_000)
            (folder / "environment.json").write_text(json.dumps([SESSION]))
    for method, loss in (("backprop", 0.005), ("continual_backprop", 0.0)):
        stream_run(root / "digits" / method, method=method, loss=loss, step_sizes=(0.003, 0.01))
    path = report.write_report([root], root / "pages" / "report.html")
    return root, path, Page(path.read_text())


def test_page_is_whole_and_loads_nothing(page):
    _, _, parsed = page
    assert parsed.open == ["html"] or parsed.open == []
    assert len(parsed.addresses) == 3  # the ant's figure, the digits' figure and sweep
    assert all(address.startswith("data:image/svg+xml;base64,") for address in parsed.addresses)


def test_page_says_what_happened(page):
    _, _, parsed = page
    text = "".join(parsed.words)
    assert re.search(r"PPO gets worse with the tasks: return goes from \d+ on the first tasks to \d+", text)
    assert re.search(
        r"Backprop, step size 0\.01 gets worse with the tasks: accuracy goes from 0\.7\d+ .* to 0\.\d+", text
    )
    assert "PPO: unknown whether it has lost plasticity (no fresh runs: add method=fresh)." in text
    assert "are dead at the end" in text
    assert "PPO" in text
    assert "torch 2.13.0" in text
    assert "torchrl" not in text
    assert "A <fast> one, 2 cores" in text  # escaped in the source, whole on the page
    assert "abcdef0123 with local changes" in text


def test_where_the_runs_were_made_is_said_once(page):
    _, _, parsed = page
    assert "".join(parsed.words).count("On A <fast> one, 2 cores: python 3.11.9, torch 2.13.0.") == 1
    runs = next(rows for rows in parsed.tables if rows[0] == ["method", "seed", "steps", "folder", "code", "started"])
    assert len(runs) == 16
    assert {tuple(row[:3]) for row in runs[1:]} == {
        (method, str(seed), "198,656") for method in ("PPO", "continual backprop", "L2") for seed in range(5)
    }


def test_published_ant_is_set_beside_the_end_of_the_runs_and_marked(page):
    root, _, parsed = page
    # PPO's published run had collapsed to 0, which says nothing on another scale
    (row,) = [row for rows in parsed.tables for row in rows if "published: step" in row[1]]
    ends = []
    for seed in range(5):
        episodes = pd.read_csv(root / "ant/l2" / f"{seed}" / "episodes.csv")
        ends.append(episodes)
    last = max(int(one["step"].max()) for one in ends)
    expected = sum(one.loc[one["step"] > last - last // 10, "return"].mean() for one in ends) / 5
    assert row[:3] == ["L2", f"last tenth of {last:,} steps (published: step 50,000,000)", "4000"]
    assert float(row[3]) == pytest.approx(expected, abs=0.5)
    assert row[4] == "5"
    assert row[6].startswith("not comparable: MuJoCo's ant")


def test_tables_hold_the_numbers_of_the_runs(page):
    root, _, parsed = page
    rows = {row[0]: row for table in parsed.tables for row in table}
    beside = [row for table in parsed.tables for row in table if row[0] == "backprop, step size 0.003"]
    digits = pd.read_csv(root / "digits" / "backprop" / "metrics.csv")
    late = digits[digits["task/index"] >= 36]["accuracy"].mean()  # the last tenth of 40 tasks, both step sizes
    last = next(row for row in beside if "published: task 800" in row[1])
    assert last[2] == "0.937"
    assert float(last[3]) == pytest.approx(late, abs=6e-4)
    assert last[4] == "10"
    assert last[6].startswith("not comparable: scikit-learn's 1,797 8x8 digits")
    assert rows["PPO"]


def test_published_mnist_is_compared_at_its_own_settings(tmp_path):
    for tasks, hidden in ((120, [2000, 2000, 2000]), (12, [100, 100, 100])):
        root = tmp_path / str(tasks)
        experiment = {"name": "permuted_mnist", "network": {"hidden": hidden}}
        stream_run(root, tasks=tasks, loss=0.001, step_sizes=(0.003, 0.01), seeds=3, experiment=experiment)
        found = published.beside(tidy.tidy(folders.read_folders([root])))
        rows = {(row.method, row.where): row for row in found.rows}
        at_ten = rows["backprop, step size 0.003", "task 10"]
        metrics = pd.read_csv(root / "metrics.csv")
        expected = metrics[(metrics["task/index"] == 9) & (metrics["run"] < 3)]["accuracy"].mean()
        assert at_ten.measured == pytest.approx(expected)
        assert at_ten.n == 3
        assert at_ten.low < at_ten.measured < at_ten.high
        comparable = "" if tasks == 120 else "not comparable: hidden [100, 100, 100], published [2000, 2000, 2000]"
        assert at_ten.note == comparable
        far = rows["backprop, step size 0.003", "task 800"]
        assert far.n == 0
        assert far.note == (comparable or "not reached")
        assert not any("0.001" in method for method, _ in rows)  # was not run


def test_published_regression_is_compared_in_its_own_bins(tmp_path):
    settings = {"hidden": [5], "redraw_all": True, "published_thresholds": True, "activation": "relu"}
    folder = stream_run(tmp_path / "a", tasks=20, seeds=3, measure="squared_error", experiment={
        "name": "slowly_changing_regression", **settings,
    })  # fmt: skip
    metrics = pd.read_csv(folder / "metrics.csv")
    metrics["step"] = (metrics["task/index"] + 1) * 10_000
    metrics.to_csv(folder / "metrics.csv", index=False)
    rows = {row.where: row for row in published.beside(tidy.tidy(folders.read_folders([folder]))).rows}
    inside = metrics["step"].isin([90_000, 100_000])  # the bin of 20,000 examples that ends at 100,000
    assert rows["step 100,000"].measured == pytest.approx(metrics.loc[inside, "squared_error"].mean())
    assert rows["step 100,000"].published == 0.83
    assert rows["step 100,000"].note == ""
    assert rows["step 1,000,000"].note == "not reached"


def test_published_differences_are_paired_by_seed(tmp_path):
    experiment = {"name": "incremental_cifar", "increment": 5, "epochs": 200, "blocks": 2}
    tables = {}
    for method, loss in (("backprop", 0.003), ("fresh", 0.0)):
        root = stream_run(tmp_path / method, method=method, tasks=20, loss=loss, seeds=3, experiment=experiment)
        table = pd.read_csv(root / "metrics.csv")
        tables[method] = table[table["task/index"] == 19].set_index("run")["accuracy"]
    data = tidy.tidy(folders.read_folders([tmp_path]))
    (row,) = published.beside(data).rows
    expected = (tables["backprop"] - tables["fresh"]).groupby(data.runs["seed"].head(3).to_numpy()).mean()
    assert row.measured == pytest.approx(expected.mean())
    assert (row.published, row.n, row.note) == (-0.05, 3, "")


def test_published_data_are_sound():
    known = yaml.safe_load(published.DATA.read_text())
    sources = known.pop("sources")
    for entry in known.values():
        assert entry["source"] in sources
        places = [(row[0], str(row[1]), str(row[2])) for row in entry["rows"]]
        assert len(set(places)) == len(places)
        for _, _, where, value in entry["rows"]:
            assert list(where) in (["task"], ["step"])
            least, most = {"accuracy": (0, 1), "difference": (-1, 1)}.get(entry["measure"], (0, 1e4))
            assert least <= value < most


def test_relearning_passes_over_tasks_that_end_before_the_one_before_them():
    episodes = pd.DataFrame({"replicate": 0, "step": range(10, 70, 10), "performance": [1.0, 2, 3] * 2})
    swapped = relearning.relearning_of(episodes.assign(task=[0, 0, 2, 2, 1, 1]))
    assert swapped.drop.shape == (1,)  # from task 0 to task 1; task 2 was over before that
    assert relearning.relearning_of(episodes.assign(task=[1, 1, 1, 0, 0, 0])).drop.shape == (0,)
    assert relearning.relearning_of(episodes.assign(task=0, performance=float("nan"))).drop.shape == (0,)


def test_relearning_of_a_run_by_hand():
    # tasks of 2,000 steps, an episode of 100 steps each: 10 until 2000, then 0 for 500 steps, 5 for 500, 10 again
    step = range(100, 4_001, 100)
    value = [10.0 if s <= 2_000 else 0.0 if s <= 2_500 else 5.0 if s <= 3_000 else 10.0 for s in step]
    episodes = pd.DataFrame({"step": step, "performance": value, "replicate": 0})
    episodes["task"] = (episodes["step"] > 2_000).astype(int)
    found = relearning.relearning_of(episodes)
    assert found.level.tolist() == [10.0]
    assert found.drop.tolist() == [10.0]
    assert found.recovery.tolist() == [1_100.0]
    assert found.area.tolist() == [10.0 * 500 + 5.0 * 500]


def test_relearning_rows(tmp_path):
    for seed in range(2):
        agent_run(tmp_path / str(seed), seed=seed, decay=0.5, steps=210_000)
    (row,) = relearning.relearning_rows(comparison.compare(folders.read_folders([tmp_path])))
    assert row["method"] == "PPO"
    assert row["runs"] == "2"
    assert row["changes"] == "4"
    assert row["recovered"] == "0%"
    assert row["steps to 90%"] == "never within the task"


@pytest.mark.parametrize(
    ("verdict", "n", "start"),
    [
        ("loses", 5, "L2 gets worse with the tasks: error goes from 0.5 on the first tasks to 0.7 on the last"),
        ("keeps", 5, "L2 is the same on the last tasks as on the first:"),
        ("gains", 5, "L2 gets better with the tasks:"),
        ("unknown", 1, "L2 goes from 0.5 on the first tasks to 0.7 on the last in error (one run: at least 5 needed"),
        ("one task", 5, "L2 has met a single task so far"),
    ],
)
def test_sentences(verdict, n, start):
    row = {
        "setting": "L2", "measure": "error", "verdict": verdict, "n": n, "first": 0.5, "last": 0.7, "change": -0.2,
        "change_low": -0.3, "change_high": -0.1, "dead_units": float("nan"), "effective_rank": 3.14159,
        "plasticity": "unknown", "missing": "no fresh runs: add method=fresh", "pairs": float("nan"),
    }  # fmt: skip
    text = sentences.sentence(row)
    assert text.startswith("L2: unknown whether it has lost plasticity (no fresh runs: add method=fresh). " + start)
    assert text.endswith(". The effective rank is 3.14.")
    assert "dead" not in text


def test_command(tmp_path, capsys):
    agent_run(tmp_path / "a", steps=20_000)
    report.main([str(tmp_path / "a")])
    assert (tmp_path / "a" / "report.html").exists()
    assert capsys.readouterr().out.strip().endswith("report.html")
    ended(capsys, report.main, tmp_path / "absent")


@pytest.mark.skipif(not shutil.which("chromium"), reason="needs a chromium browser")
def test_a_browser_shows_it(page, tmp_path):
    _, path, _ = page
    pixels = photographed(tmp_path, path.as_uri(), "1000,3000")
    browse = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}"]
    dom = subprocess.run([*browse, "--dump-dom", path.as_uri()], check=True, capture_output=True, timeout=120).stdout
    assert dom.decode().count("<table>") == path.read_text().count("<table>")
    assert (pixels == (0x00, 0x72, 0xB2)).all(axis=1).any()  # the figures are drawn, not only linked
