"""Every method beside a fresh network: differences and intervals worked out by hand."""

import math

import numpy as np
import pandas as pd
import pytest

from tests.tools.made_up import levels_run, stream_run, summary_table
from tools import plot, report
from tools.figures import (
    agent,
    comparison,
    folders,
    fresh,
    sentences,
    stream,
    style,
    table,
    tasks,
)

T3 = 4.302653  # Student's t at 97.5% with 2 degrees of freedom, from a printed table


def read(root):
    return folders.read_folders([root])


def put(root, method, by_seed, **config):
    for seed, levels in by_seed.items():
        levels_run(root / method / f"seed_{seed}", levels, method=method, seed=seed, **config)


@pytest.fixture
def three_seeds(tmp_path):
    # task 0 is the same for all and does not count, however far apart
    put(tmp_path, "fresh", {0: [900, 100, 110], 1: [0, 120, 130], 2: [0, 80, 90]})
    put(tmp_path, "ppo", {0: [0, 60, 50], 1: [0, 90, 60], 2: [0, 20, 10]})
    put(tmp_path, "continual_backprop", {0: [0, 110, 90], 1: [0, 125, 145], 2: [0, 75, 85]})
    return tmp_path


def test_difference_and_interval_by_hand(three_seeds):
    data = tasks.task_ends(read(three_seeds))
    found = fresh.difference(data, "PPO")
    # seed by seed: (-40 - 60) / 2, (-30 - 70) / 2, (-60 - 80) / 2
    per_seed = np.array([-50.0, -50.0, -70.0])
    half = T3 * math.sqrt(((per_seed - per_seed.mean()) ** 2).sum() / 2) / math.sqrt(3)
    assert (found.n, found.tasks, found.missing, found.verdict) == (3, 2, "", "lost")
    assert found.value == pytest.approx(-170 / 3)
    assert [found.low, found.high] == pytest.approx([-170 / 3 - half, -170 / 3 + half], abs=1e-4)
    kept = fresh.difference(data, "continual backprop")  # (10 - 20) / 2, (5 + 15) / 2, (-5 - 5) / 2
    assert kept.value == pytest.approx(0.0, abs=1e-12)
    assert kept.verdict == "level"
    against_ppo = fresh.difference(data, "continual backprop", "PPO")  # (50 + 40) / 2, (35 + 85) / 2, (55 + 75) / 2
    assert against_ppo.value == pytest.approx((45 + 60 + 65) / 3)
    assert against_ppo.verdict == "above"
    assert (found.worse, found.worse_low, found.worse_high) == (1.0, 1.0, 1.0)
    # two tasks of each seed: one, none and two of them worse
    half = T3 * 0.5 / math.sqrt(3)
    assert [kept.worse, kept.worse_low, kept.worse_high] == pytest.approx([0.5, max(0, 0.5 - half), min(1, 0.5 + half)])


def test_who_is_behind_from_the_first_task_on_has_lost_nothing(tmp_path):
    put(tmp_path, "fresh", {0: [100, 100, 110], 1: [110, 120, 130], 2: [90, 80, 90]})
    # -50, -48, -52 in the first task; later -49, -51, -50: as far behind as before
    put(tmp_path, "trac", {0: [50, 51, 61], 1: [62, 69, 79], 2: [38, 30, 40]})
    # as far behind in the first task; later -70, -71, -69
    put(tmp_path, "ppo", {0: [50, 30, 40], 1: [62, 49, 59], 2: [38, 11, 21]})
    data = tasks.task_ends(read(tmp_path))
    assert fresh.difference(data, "TRAC").verdict == "slower"
    assert fresh.difference(data, "PPO").verdict == "lost"
    (row,) = summary_table([tmp_path]).query("setting == 'TRAC'").to_dict("records")
    assert "so it does the first task: it learns less, no loss of plasticity is shown" in sentences.against_fresh(row)


def test_one_ruinous_task_hides_no_loss_in_the_others(tmp_path):
    put(tmp_path, "fresh", {seed: [0, 500, 510, 490, 505] for seed in range(3)})
    put(tmp_path, "ppo", {0: [0, 400, 410, 405, 400], 1: [0, 300, -9e5, 310, 320], 2: [0, 350, 340, 330, 600]})
    (row,) = summary_table([tmp_path]).query("setting == 'PPO'").to_dict("records")
    assert row["plasticity"] == "level"
    assert (row["tasks_worse"], row["tasks_worse_low"]) == pytest.approx((11 / 12, 11 / 12 - T3 / 12), abs=1e-6)
    said = sentences.against_fresh(row)
    assert "a mean that single tasks rule shows no loss, but 92% [56, 100] of its tasks end worse than" in said


def test_a_ruinous_task_leaves_room_for_the_others(tmp_path):
    put(tmp_path, "fresh", {seed: [450, 500, 510, 490, 505] for seed in range(3)})
    put(tmp_path, "ppo", {seed: [400, 300, -9e5, 310, 320] for seed in range(3)})
    with style.style():
        figure = agent.agent_figure(comparison.compare(read(tmp_path)))
    top = next(axes for axes in figure.axes if "last quarter" in axes.get_title("left"))
    assert top.get_yscale() == "symlog"
    assert top.get_title("left").endswith(", log beyond 1k")
    inside = top.transAxes.inverted().transform(top.transData.transform([[0, 0], [0, 500]]))[:, 1]
    assert inside[1] - inside[0] > 0.1


def test_runs_are_paired_by_seed_whatever_their_order_and_a_seed_alone_is_left_out(tmp_path):
    put(tmp_path, "fresh", {7: [0, 1000], 3: [0, 10], 5: [0, 100], 9: [0, 7777]})
    put(tmp_path, "ppo", {3: [0, 9], 5: [0, 99], 7: [0, 999], 11: [0, -5000]})
    found = fresh.difference(tasks.task_ends(read(tmp_path)), "PPO")
    assert (found.value, found.low, found.high, found.n) == (-1.0, -1.0, -1.0, 3)
    row = summary_table([tmp_path]).set_index("setting").loc["PPO"]
    assert (row["pairs"], row["runs"]) == (3, 4)
    assert "(3 of 4 seeds, 1 task after the first)" in sentences.against_fresh({"setting": "PPO", **row})


def test_runs_of_another_world_are_no_partners_and_of_several_the_nearest_in_its_settings_is(tmp_path):
    def world(change_every):
        return {"environment": {"id": "Mine-v0", "friction": {"change_every": change_every}}}

    for seed in range(3):
        for number, (every, size, level) in enumerate([(1000, 0.1, 10), (1000, 0.2, 20), (500, 0.1, 500)]):
            folder = tmp_path / f"fresh{number}/{seed}"
            levels_run(folder, [0, level], method="fresh", seed=seed, step_size=size, **world(every))
        levels_run(tmp_path / f"ppo/{seed}", [0, 15], seed=seed, step_size=0.2, **world(1000))
    assert fresh.difference(tasks.task_ends(read(tmp_path)), "PPO").value == -5.0
    for number in (0, 1):
        for path in tmp_path.glob(f"fresh{number}/*/config.yaml"):
            path.unlink()
    found = fresh.difference(tasks.task_ends(read(tmp_path)), "PPO")
    assert (found.n, found.missing) == (0, "no run of fresh network has the same seed and tasks")


def test_settings_of_the_world_that_are_null_match(tmp_path):
    for method, level in (("fresh", 10), ("ppo", 7)):
        for seed in range(3):
            levels_run(
                tmp_path / f"{method}/{seed}",
                [0, level],
                method=method,
                seed=seed,
                environment={"id": "CartPole-v1", "friction": None, "time_limit": None},
            )
    found = fresh.difference(tasks.task_ends(read(tmp_path)), "PPO")
    assert (found.n, found.value) == (3, -3.0)


@pytest.mark.parametrize(
    ("fresh_runs", "ppo_runs", "missing", "text"),
    [
        (
            {},
            {0: [0, 1], 1: [0, 1]},
            "no fresh runs: add method=fresh",
            "unknown whether it has lost plasticity (no fresh",
        ),
        ({0: [0, 9]}, {0: [0, 1]}, "one seed: at least 3 needed", "8 below a fresh network's (one seed: at least 3"),
        ({0: [0, 9], 1: [0, 9]}, {0: [0, 1], 1: [0, 1]}, "2 seeds: at least 3 needed", "to tell this from chance)."),
        ({0: [5], 1: [5]}, {0: [5], 1: [5]}, "one task so far: it has to change", "(one task so far"),
    ],
)
def test_what_is_missing_is_said(tmp_path, fresh_runs, ppo_runs, missing, text):
    put(tmp_path, "fresh", fresh_runs)
    put(tmp_path, "ppo", ppo_runs)
    row = summary_table([tmp_path]).set_index("setting").loc["PPO"]
    assert (row["plasticity"], row["missing"]) == ("unknown", missing)
    assert text in sentences.against_fresh({"setting": "PPO", **row})


def test_lengths_differ_and_returns_are_unknown(tmp_path):
    put(tmp_path, "fresh", {s: [0, 10, 10, 10] for s in range(4)})
    put(tmp_path, "ppo", {0: [0, 8, 8, 8], 1: [0, 7, 7, 7], 2: [0, 6, 6, 6], 3: [0, -900]})
    path = tmp_path / "ppo/seed_1/episodes.csv"
    episodes = pd.read_csv(path)
    episodes.loc[episodes["task"] == 2, "return"] = np.nan  # no return known in one task: the others count
    episodes.to_csv(path, index=False)
    found = fresh.difference(tasks.task_ends(read(tmp_path)), "PPO")
    assert (found.value, found.n, found.tasks) == (-3.0, 3, 3)  # the short run waits until it has come as far


def test_errors_are_lost_above_and_streams_pair_their_runs_by_seed(tmp_path):
    worse = [0.1, 0.2, 0.3]
    for method in ("fresh", "backprop"):
        folder = stream_run(tmp_path / method, method=method, seeds=3, tasks=3, measure="squared_error")
        metrics = pd.read_csv(folder / "metrics.csv")
        rise = metrics["run"].map(dict(enumerate(worse))) * (metrics["task/index"] > 0) * (method == "backprop")
        metrics["squared_error"] = 1.0 + metrics["run"] + rise
        metrics.sample(frac=1, random_state=0).to_csv(folder / "metrics.csv", index=False)
    row = summary_table([tmp_path]).set_index("setting").loc["backprop"]
    half = T3 * 0.1 / math.sqrt(3)
    assert [row[f"minus_fresh{end}"] for end in ("", "_low", "_high")] == pytest.approx([0.2, 0.2 - half, 0.2 + half])
    assert row["plasticity"] == "level"  # the interval of three seeds reaches below 0
    metrics = pd.read_csv(tmp_path / "backprop/metrics.csv")
    metrics.loc[metrics["task/index"] > 0, "squared_error"] += 1.0
    metrics.to_csv(tmp_path / "backprop/metrics.csv", index=False)
    row = summary_table([tmp_path]).set_index("setting").loc["backprop"]
    assert row["plasticity"] == "lost"
    text = sentences.against_fresh({"setting": "backprop", **row})
    assert text.startswith(
        "Backprop ends tasks with a squared error 1.20 above a fresh network's [0.95, 1.45] (3 seeds, 2 "
    )
    assert text.endswith(": it has lost plasticity.")


def test_a_diverged_run_of_a_stack_hides_nothing_and_is_counted_out(tmp_path):
    for method, level in (("fresh", 0.8), ("backprop", 0.7)):
        folder = stream_run(tmp_path / method, method=method, seeds=4, tasks=5)
        metrics = pd.read_csv(folder / "metrics.csv")
        metrics["accuracy"] = level
        if method == "backprop":
            metrics.loc[(metrics["run"] == 2) & (metrics["task/index"] > 1), "accuracy"] = np.nan
        metrics.to_csv(folder / "metrics.csv", index=False)
    row = summary_table([tmp_path]).set_index("setting").loc["backprop"]
    assert (row["pairs"], row["runs"], row["n"], row["tasks"]) == (3, 4, 3, 5)
    assert row["minus_fresh"] == pytest.approx(-0.1)


def test_rows_within_a_task_count_in_its_last_quarter(tmp_path):
    folder = stream_run(tmp_path / "a", seeds=1, tasks=2)
    rows = [(800 * task + 100 * k, 0, task, float(k >= 7)) for task in range(2) for k in range(1, 9)]
    metrics = pd.DataFrame(rows, columns=["step", "run", "task/index", "accuracy"])
    metrics.to_csv(folder / "metrics.csv", index=False)
    assert tasks.task_ends(read(tmp_path)).ends.to_numpy().tolist() == [[1.0, 1.0]]


def test_the_first_panel_shows_every_task_the_fresh_network_in_grey_and_the_difference(three_seeds):
    figure = agent.agent_figure(comparison.compare(read(three_seeds)))
    panel = next(axes for axes in figure.axes if "last quarter" in axes.get_title(loc="left"))
    curves = {line.get_label(): line for line in panel.lines if not line.get_label().startswith("_")}
    assert curves["fresh network"].get_color() == style.GREY
    np.testing.assert_allclose(curves["PPO"].get_ydata(), [0, 170 / 3, 40])
    np.testing.assert_allclose(curves["fresh network"].get_ydata(), [300, 100, 110])
    np.testing.assert_allclose(curves["PPO"].get_xdata(), [875, 1875, 2875])  # the middle of each last quarter
    assert "PPO (n=3)\n-56.7 [-85.4, -28.0] to fresh" in {text.get_text() for text in panel.texts}


def test_the_command_ends_with_what_it_found_and_where_to_read_more(three_seeds, capsys):
    plot.main([str(three_seeds)])
    printed = capsys.readouterr().out
    heading, _, first = printed.splitlines()[:3]
    assert [cell.strip() for cell in heading.split("|")[1:5]] == ["method", "n", "minus fresh", "plasticity"]
    assert [cell.strip() for cell in first.split("|")[1:5]][-2:] == ["0.0 [-21.5, 21.5]", "no loss shown"]
    assert (
        "PPO ends tasks with a return 56.7 below a fresh network's [-85.4, -28.0] (3 seeds, 2 tasks after the first): "
        "it has lost plasticity."
    ) in printed
    assert f"Read more: python -m tools.report {three_seeds}" in printed
    assert len([line for line in printed.splitlines() if line.startswith(("minus fresh:", "first, last"))]) == 2


def test_without_fresh_runs_it_is_said_once_and_the_trend_given(tmp_path):
    put(tmp_path, "ppo", {seed: [100, 50 + seed, 10 + seed] for seed in range(5)})
    put(tmp_path, "l2", {seed: [100, 100, 100 + seed] for seed in range(5)})
    text = sentences.conclusion(summary_table([tmp_path]), tmp_path).splitlines()
    assert text[0] == "Unknown whether plasticity is lost: no fresh runs: add method=fresh."
    assert text[1].startswith("PPO gets worse with the tasks: return goes from 100 on the first tasks to 12")
    assert text[2].startswith("Read more: ")
    assert len(text) == 3


def test_results_pages_are_found_by_experiment():
    assert sentences._page("slippery_ant") == "docs/results/slippery_ant.md"
    assert sentences._page("permuted_digits") == "docs/results/streams.md"
    assert sentences._page("of_my_own") == ""


def test_a_step_size_that_a_method_reads_from_its_experiment_is_named_once(tmp_path):
    for size in (1e-3, 1e-4):
        for width in (8, 16):
            constants = {"optimizer": {"step_size": size}, "network": {"hidden": [width]}}
            levels_run(tmp_path / f"{size}/{width}", [0, 1], step_size=size, **constants)
    assert set(folders.setting_labels(read(tmp_path))) == {
        f"PPO, step size {size}, hidden [{width}]" for size in (0.001, 0.0001) for width in (8, 16)
    }


def test_t_interval_needs_three():
    assert all(map(math.isnan, fresh.t_interval(np.array([1.0, 2.0]))))
    low, high = fresh.t_interval(np.array([1.0, 2.0, 3.0]))
    assert (low, high) == pytest.approx((2 - T3 / math.sqrt(3), 2 + T3 / math.sqrt(3)), abs=1e-5)


def test_numbers_that_belong_together_have_the_same_decimals():
    assert table.interval(-2.21e-05, -6.77e-4, 6.33e-4) == "-0.000022 [-0.000677, 0.000633]"
    assert table.interval(-0.4, -395.2, 12.0) == "0 [-395, 12]"
    assert table.interval(0.78, 0.774, 0.788) == "0.780 [0.774, 0.788]"
    assert table.interval(1e-9, 0.0, 2e-9) == "1e-09 [0, 2e-09]"


def test_every_method_is_held_against_every_other(three_seeds):
    headings, rows = report.paired_table(tasks.task_ends(read(three_seeds)))
    assert headings == ["method", "minus fresh network", "minus PPO", "minus continual backprop"]
    table_of = {row[0]: dict(zip(headings[1:], row[1:], strict=True)) for row in rows}
    assert table_of["PPO"]["minus fresh network"] == "-56.7 [-85.4, -28.0] (3)"
    assert table_of["PPO"]["minus PPO"] == ""
    # seed by seed 45, 60, 65, as above; the other way round with the other sign
    half = T3 * math.sqrt((11.6667**2 + 3.3333**2 + 8.3333**2) / 2) / math.sqrt(3)
    assert table_of["continual backprop"]["minus PPO"] == f"56.7 [{170 / 3 - half:.1f}, {170 / 3 + half:.1f}] (3)"
    assert table_of["PPO"]["minus continual backprop"].startswith("-56.7 [")


def test_one_method_has_nothing_to_be_held_against(tmp_path):
    put(tmp_path, "ppo", {0: [0, 1], 1: [0, 2]})
    assert report.paired_table(tasks.task_ends(read(tmp_path))) == ([], [])


@pytest.fixture
def swept(tmp_path):
    for method, fall in (("ppo", 10), ("fresh", 0)):
        for place, size in enumerate((1e-4, 3e-4, 1e-3, 3e-3)):
            for seed in range(2):
                levels = [50 + 10 * place + seed - fall * task for task in range(3)]
                folder = tmp_path / f"{method}_{size}/{seed}"
                constants = {"optimizer": {"step_size": size}, "tuned_adam": {"step_size": 0.01}}  # another method's
                levels_run(folder, levels, method=method, seed=seed, step_size=size, **constants)
    return tmp_path


def test_a_sweep_over_agents_settings_ends_in_a_sweep_figure(swept):
    data = tasks.sweep_of_agents(read(swept))
    assert data.parameters == ["step_size"]
    *panels, last = stream.sweep_figure(data).axes
    titles = [axes.get_title(loc="left") for axes in (*panels, last)]
    assert titles == ["step size 1e-4", "step size 3e-4", "step size 0.001", "step size 0.003", "tasks after the first"]
    curves = {line.get_label(): line.get_xydata() for line in panels[1].lines if not line.get_label().startswith("_")}
    np.testing.assert_allclose(curves["PPO"], [[1, 60.5], [2, 50.5], [3, 40.5]])
    bars = next(one for one in last.containers if one.get_label() == "PPO")
    np.testing.assert_allclose(bars[0].get_ydata(), [35.5, 45.5, 55.5, 65.5])  # tasks 2 and 3
    assert plot.draw_runs([swept], swept / "out").figures[0] == swept / "out/figure.png"
    assert (swept / "out/figure_sweep.png").exists()


def test_of_many_settings_the_figure_shows_each_methods_best_and_the_control_of_its_own_step_size(swept):
    figure = agent.agent_figure(comparison.compare(read(swept)))
    texts = {text.get_text() for text in figure.axes[0].texts if "n=" in text.get_text()}
    # two runs have no interval; each is held against the fresh network with its own step size
    assert texts == {"PPO, step size 0.003 (n=2)\n-15 to fresh", "fresh network, step size 0.003 (n=2)"}


def test_a_mean_over_tasks_does_not_hide_a_loss_that_comes_late(tmp_path):
    put(tmp_path, "fresh", {seed: [10, 10, 10, 10] for seed in range(5)})
    put(tmp_path, "ppo", {seed: [10, 90 + seed, 10, 4 + seed / 10] for seed in range(5)})
    row = summary_table([tmp_path]).set_index("setting").loc["PPO"]
    text = sentences.against_fresh({"setting": "PPO", **row})
    assert "no loss of plasticity is shown, it gains from what it learned before; but it gets worse" in text
    assert "by -5.80 [-5.9" in text


def test_tasks_that_get_harder_show_no_trend(tmp_path):
    for method in ("backprop", "fresh"):
        root = stream_run(tmp_path / method, method=method, tasks=20, loss=0.02)
        metrics = pd.read_csv(root / "metrics.csv")
        metrics.assign(**{"task/classes": metrics["task/index"] + 1}).to_csv(root / "metrics.csv", index=False)
    rows = table.rows_of(folders.read_folders([tmp_path]))
    assert [row["verdict"] for row in rows] == ["harder", "harder"]
    said = sentences.conclusion(table.make_table(rows), tmp_path)
    assert "no loss of plasticity is shown." in said
    assert "worse" not in said
