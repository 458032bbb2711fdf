import io

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image
from scipy import stats

from tests.helpers import ended, events_of
from tests.tools.made_up import agent_run, stream_run, summary_table
from tools import plot
from tools.figures import agent, comparison, estimates, folders, stream, style, table, tasks, tidy


@pytest.fixture(scope="module")
def ants(tmp_path_factory):
    root = tmp_path_factory.mktemp("ants")
    for method, decay in (("ppo", 0.2), ("continual_backprop", 0.0)):
        for seed in range(5):
            agent_run(root / method / f"seed_{seed}", method=method, seed=seed, decay=decay, steps=270_000)
    return root


@pytest.fixture(scope="module")
def streams(tmp_path_factory):
    root = tmp_path_factory.mktemp("streams")
    for method, loss in (("backprop", 0.005), ("continual_backprop", 0.0)):
        stream_run(root / method, method=method, loss=loss, step_sizes=(0.001, 0.01))
    return root


def lines(axes):
    """Curves drawn, by what they show; unnamed lines (task changes) are left out."""
    return {line.get_label(): line.get_xydata() for line in axes.lines if not line.get_label().startswith("_")}


def test_agent_figure_shows_the_numbers_of_the_folders(ants):
    runs = folders.read_folders([ants])
    figure = agent.agent_figure(comparison.compare(runs))
    strip, ends, returns, dead, rank, weights = figure.axes
    assert ends.get_title(loc="left") == "return in the last quarter of each task, mean and 95% interval"
    assert returns.get_title(loc="left") == "return per episode, mean and 95% interval"
    assert dead.get_title(loc="left") == "dead units (%)"
    assert weights.get_title(loc="left") == "mean |weight|"
    assert "rank" in rank.get_title(loc="left")
    assert "friction" in strip.get_title(loc="left")
    drawn = lines(returns)["PPO"]
    # by hand: bins of 5,000 steps; the fourth bin is (15000, 20000]
    assert drawn[3, 0] == 17_500
    means = []
    for seed in range(5):
        episodes = pd.read_csv(ants / "ppo" / f"seed_{seed}" / "episodes.csv")
        inside = (episodes["step"] > 15_000) & (episodes["step"] <= 20_000)
        means.append(episodes.loc[inside, "return"].mean())
    assert drawn[3, 1] == pytest.approx(np.mean(means))
    shown = lines(dead)["PPO"]
    metrics = pd.concat(pd.read_csv(ants / "ppo" / f"seed_{seed}" / "metrics.csv") for seed in range(5))
    assert shown[:, 1].max() == pytest.approx(100 * metrics["plasticity/dead_units"].max(), abs=3)
    for panel in (ends, returns):
        changes = [line.get_xdata()[0] for line in panel.lines if line.get_color() == "#999999"]
        assert changes == pytest.approx([100_000, 200_000], abs=1_100)  # at the first episode end after the boundary


def test_labels_sit_at_the_line_ends_and_say_n(ants):
    figure = agent.agent_figure(comparison.compare(folders.read_folders([ants])))
    for axes in figure.axes[1:]:
        figure.canvas.draw()
        boxes = [text.get_window_extent() for text in axes.texts]
        assert len(boxes) == 2
        assert not boxes[0].overlaps(boxes[1])
        for text, data in zip(
            axes.texts, [lines(axes)[text.get_text().split(" (n")[0]] for text in axes.texts], strict=True
        ):
            height = axes.transAxes.inverted().transform(axes.transData.transform(data[-1]))[1]
            assert text.xyann[1] == pytest.approx(height, abs=0.2)
    assert {text.get_text() for text in figure.axes[1].texts} == {"PPO (n=5)", "continual backprop (n=5)"}


def test_one_sequence_of_frictions_is_drawn_as_bands(tmp_path):
    for method in ("ppo", "continual_backprop"):
        agent_run(tmp_path / method, method=method, steps=150_000)
    figure = agent.agent_figure(comparison.compare(folders.read_folders([tmp_path])))
    ends, returns = figure.axes[:2]
    assert ends.get_title(loc="left") == "return in the last quarter of each task, single runs"
    assert returns.get_title(loc="left") == "return per episode, single runs"
    friction = sorted(pd.read_csv(tmp_path / "ppo" / "episodes.csv")["friction"].unique(), reverse=True)
    written = [text.get_text() for text in ends.texts if "n=" not in text.get_text()]
    assert written == [f"friction {friction[0]:.2g}", f"{friction[1]:.2g}"]
    colours = [patch.get_facecolor() for patch in returns.patches]
    norm = agent._friction_norm(pd.DataFrame({"friction": friction}))
    assert colours == [pytest.approx(agent.ICE(norm(value))) for value in friction]


def test_runs_of_one_seed_share_their_ground_even_if_one_skipped_a_task():
    rows = [(0, 0, 0, 9, 1.2), (0, 1, 9, 19, 0.1), (0, 2, 19, 29, 0.5), (1, 0, 0, 12, 1.2), (1, 2, 12, 31, 0.5)]
    columns = ["replicate", "task", "start", "end", "friction"]
    assert len(agent._distinct_grounds(pd.DataFrame(rows, columns=columns))) == 1
    assert len(agent._distinct_grounds(pd.DataFrame([*rows, (2, 0, 0, 9, 0.7)], columns=columns))) == 2


def test_iqm_from_eight_runs_on(tmp_path):
    for seed in range(8):
        agent_run(tmp_path / f"seed_{seed}", seed=seed, steps=20_000)
    bad = pd.read_csv(tmp_path / "seed_0" / "episodes.csv")
    bad["return"] = -1e6  # one diverged run: the interquartile mean does not care
    bad.to_csv(tmp_path / "seed_0" / "episodes.csv", index=False)
    figure = agent.agent_figure(comparison.compare(folders.read_folders([tmp_path])))
    returns = next(axes for axes in figure.axes if "return" in axes.get_title(loc="left"))
    assert "interquartile mean" in returns.get_title(loc="left")
    (curve,) = lines(returns).values()
    assert curve[:, 1].min() > -500


def test_summary_table_of_agents_by_hand(ants):
    summary = summary_table([ants]).set_index("setting")
    assert list(summary.index) == ["continual backprop", "PPO"]
    ends = {0: [], 2: []}
    for seed in range(5):
        episodes = pd.read_csv(ants / "ppo" / f"seed_{seed}" / "episodes.csv")
        for task, values in ends.items():
            start = episodes.loc[episodes["task"] == task - 1, "step"].max() if task else 0
            one = episodes[episodes["task"] == task]
            late = one["step"] > one["step"].max() - (one["step"].max() - start) / 4
            values.append(one.loc[late, "return"].mean())
    row = summary.loc["PPO"]
    assert row["n"] == 5
    assert row["tasks"] == 3
    assert row["first"] == pytest.approx(np.mean(ends[0]))
    assert row["last"] == pytest.approx(np.mean(ends[2]))
    assert row["change"] == pytest.approx(np.mean(ends[2]) - np.mean(ends[0]))
    assert row["last_low"] < row["last"] < row["last_high"]
    assert row["verdict"] == "loses"
    lasts = [
        pd.read_csv(ants / "ppo" / f"seed_{s}" / "metrics.csv")["plasticity/dead_units"].dropna() for s in range(5)
    ]
    assert row["dead_units"] == pytest.approx(np.mean([one.iloc[-1] for one in lasts]))


def test_overall_return_is_the_interquartile_mean_with_tasks_as_strata(ants):
    summary = summary_table([ants]).set_index("setting")
    (runs,) = folders.by_experiment(folders.read_folders([ants / "ppo"])).values()
    scores = tasks.task_ends(runs).ends.to_numpy()
    assert scores.shape == (5, 3)
    assert summary.loc["PPO", "overall"] == pytest.approx(stats.trim_mean(scores.ravel(), 0.25))
    assert summary.loc["PPO", "overall_low"] < summary.loc["PPO", "overall"] < summary.loc["PPO", "overall_high"]
    # tasks of very different height but equal runs: drawing runs anew within a task changes nothing
    levels = np.tile([1.0, 100.0, 1000.0, 5.0], (6, 1))
    assert set(table._overall(levels).values()) == {52.5}


def test_a_run_on_its_way_does_not_hide_what_the_others_did(tmp_path):
    for seed, steps in enumerate((300_000, 300_000, 60_000)):
        agent_run(tmp_path / str(seed), seed=seed, steps=steps)
    row = summary_table([tmp_path]).iloc[0]
    assert (row["n"], row["tasks"]) == (2, 3)


def test_an_environment_that_announces_no_task_has_one(tmp_path):
    for seed in range(2):
        folder = agent_run(tmp_path / f"{seed}", seed=seed, change=10**9)
        episodes = pd.read_csv(folder / "episodes.csv")
        episodes.assign(task=np.nan, friction=np.nan).to_csv(folder / "episodes.csv", index=False)
    (row,) = summary_table([tmp_path]).to_dict("records")
    assert (row["n"], row["tasks"], row["verdict"]) == (2, 1, "one task")
    assert row["first"] == pytest.approx(row["overall"])


def test_a_stub_of_a_last_task_is_left_out():
    steps = np.arange(1000, 21_001, 1000)
    tasks_of = (steps > 10_000) * 1 + (steps > 20_000)
    episodes = pd.DataFrame({"replicate": 0, "step": steps, "task": tasks_of, "performance": steps})
    # tasks end at 10,000 and 20,000; the third has 1,000 steps only; the last quarter is (7500, 10000], (17500, 20000]
    assert tasks.returns_at_task_ends(episodes).loc[0].to_dict() == {0: 9_000.0, 1: 19_000.0}


def test_stream_figure_shows_the_numbers_of_the_folders(streams):
    runs = folders.read_folders([streams])
    data = tidy.tidy(runs)
    assert data.parameters == ["step_size"]
    assert set(data.settings) == {
        f"{method}, step size {size}" for method in ("backprop", "continual backprop") for size in ("0.001", "0.01")
    }
    figure = stream.stream_figure(data, tasks.task_ends(runs))
    top = figure.axes[0]
    assert top.get_title(loc="left") == "accuracy, mean and 95% interval"
    assert [axes.get_title(loc="left") for axes in figure.axes[1:]] == [
        "dead units (%)",
        "effective rank",
        "mean |weight|",
    ]
    metrics = pd.read_csv(streams / "backprop" / "metrics.csv")
    expected = metrics[metrics["run"] >= 5].groupby("task/index")["accuracy"].mean()  # runs 5-9 have step size .01
    drawn = lines(top)["backprop, step size 0.01"]
    np.testing.assert_allclose(drawn[:, 0], range(1, 41))  # people count tasks from 1
    np.testing.assert_allclose(drawn[:, 1], expected)


def test_sweep_figure(streams):
    data = tidy.tidy(folders.read_folders([streams]))
    small, large, last = stream.sweep_figure(data).axes
    assert [axes.get_title(loc="left") for axes in (small, large, last)] == [
        "step size 0.001", "step size 0.01", "last tenth",
    ]  # fmt: skip
    metrics = pd.read_csv(streams / "backprop" / "metrics.csv")
    late = metrics[(metrics["task/index"] >= 36) & (metrics["run"] >= 5)]["accuracy"].mean()
    container = next(one for one in last.containers if one.get_label() == "backprop")
    assert container[0].get_xydata()[1] == pytest.approx([0.01, late])


def test_sweep_over_several_parameters_has_a_block_per_combination(tmp_path):
    for activation in ("relu", "tanh"):
        folder = stream_run(tmp_path / activation, step_sizes=(0.001, 0.01), seeds=2)
        runs = pd.read_csv(folder / "runs.csv").assign(**{"network.activation": activation})
        runs.to_csv(folder / "runs.csv", index=False)
    data = tidy.tidy(folders.read_folders([tmp_path]))
    titles = [axes.get_title(loc="left") for axes in stream.sweep_figure(data).axes]
    assert titles == [
        "activation relu\nstep size 0.001", "step size 0.01", "last tenth",
        "activation tanh\nstep size 0.001", "step size 0.01", "last tenth",
    ]  # fmt: skip


def test_of_a_sweep_over_many_values_some_have_a_panel_and_the_last_panel_has_all(tmp_path):
    sizes = [k / 1000 for k in range(1, 31)]
    stream_run(tmp_path / "swept", step_sizes=sizes, seeds=2)
    *panels, last = stream.sweep_figure(tidy.tidy(folders.read_folders([tmp_path]))).axes
    titles = [axes.get_title(loc="left").removeprefix("step size ") for axes in panels]
    assert (titles[0], titles[-1], len(titles)) == ("0.001", "0.03", stream.MOST_VALUES)
    bars = next(one for one in last.containers if one.get_label() == "backprop")
    np.testing.assert_allclose(np.asarray(bars[0].get_xdata(), float), sizes)


def test_a_method_without_the_parameter_is_in_every_panel_and_a_line_in_the_last(tmp_path):
    stream_run(tmp_path / "swept", method="l2", step_sizes=(0.001, 0.01), seeds=2)
    folder = stream_run(tmp_path / "other", seeds=2)
    runs = pd.read_csv(folder / "runs.csv").assign(step_size=np.nan)
    runs.to_csv(folder / "runs.csv", index=False)
    small, large, last = stream.sweep_figure(tidy.tidy(folders.read_folders([tmp_path]))).axes
    for panel in (small, large):
        assert set(lines(panel)) == {"L2", "backprop"}
        np.testing.assert_allclose(lines(panel)["backprop"], lines(small)["backprop"])
    metrics = pd.read_csv(folder / "metrics.csv")
    late = metrics[metrics["task/index"] >= 36]["accuracy"].mean()
    np.testing.assert_allclose(lines(last)["backprop"][:, 1], late)


def test_sweep_over_words(tmp_path):
    for hidden in ("1000x1000", "100x100"):
        folder = stream_run(tmp_path / hidden, seeds=2)
        runs = pd.read_csv(folder / "runs.csv").assign(**{"network.hidden": hidden})
        runs.to_csv(folder / "runs.csv", index=False)
    *panels, last = stream.sweep_figure(tidy.tidy(folders.read_folders([tmp_path]))).axes
    assert [axes.get_title(loc="left") for axes in panels] == ["hidden 100x100", "hidden 1000x1000"]
    assert [label.get_text() for label in last.get_xticklabels()] == ["100x100", "1000x1000"]


def test_rows_longer_than_tasks_are_drawn_over_examples(tmp_path):
    folder = stream_run(tmp_path / "a", tasks=40)
    metrics = pd.read_csv(folder / "metrics.csv")
    metrics[metrics["task/index"] % 2 == 1].to_csv(folder / "metrics.csv", index=False)
    runs = folders.read_folders([tmp_path])
    top = stream.stream_figure(tidy.tidy(runs), tasks.task_ends(runs)).axes[0]
    assert top.get_xlabel() == "example"
    (curve,) = lines(top).values()
    assert curve[:, 0].tolist() == [1797 * (2 * k + 1) for k in range(20)]  # the middle of each row's stretch


def test_a_comparison_in_one_folder_gives_each_run_its_own_methods_settings(tmp_path):
    folder = stream_run(tmp_path / "a", seeds=4)
    runs = pd.read_csv(folder / "runs.csv").drop(columns="step_size")
    runs.assign(method=["backprop", "backprop", "adam", "adam"]).to_csv(folder / "runs.csv", index=False)
    sizes = {"backprop": 0.02, "adam": 0.001}
    of = {name: {"name": name, "optimizer": {"step_size": size}} for name, size in sizes.items()}
    config = yaml.safe_load((folder / "config.yaml").read_text()) | {"method": {"name": "compared", "of": of}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    data = tidy.tidy(folders.read_folders([folder]))
    assert data.settings == ["backprop", "Adam"]
    assert data.parameters == []
    assert data.runs["step_size"].tolist() == [0.02, 0.02, 0.001, 0.001]


def test_more_methods_than_colours_are_all_drawn_and_differ(tmp_path):
    for k in range(9):
        stream_run(tmp_path / f"{k}", method=f"method_{k}", seeds=1, tasks=3)
    runs = folders.read_folders([tmp_path])
    top = stream.stream_figure(tidy.tidy(runs), tasks.task_ends(runs)).axes[0]
    assert len(lines(top)) == 9
    assert len({(line.get_color(), str(line.get_linestyle())) for line in top.lines}) == 9


def test_errors_are_better_when_low(tmp_path):
    stream_run(tmp_path / "a", method="backprop", loss=0.005, measure="error")
    row = summary_table([tmp_path]).iloc[0]
    assert row["measure"] == "error"
    assert row["last"] > row["first"]
    assert row["change"] < 0
    assert row["verdict"] == "loses"


def test_draw_runs_writes_figures_and_tables(ants, streams, tmp_path):
    path = plot.draw_runs([ants, streams], tmp_path / "figures").figures[0]
    assert path == tmp_path / "figures" / "slippery_ant.png"
    names = {file.name for file in path.parent.iterdir()}
    figures = {
        f"{name}{end}"
        for name in ("slippery_ant", "permuted_digits", "permuted_digits_sweep")
        for end in (".png", ".svg")
    }
    assert names == figures | {"table.csv", "table.md"}
    picture = np.asarray(Image.open(path).convert("RGB")).reshape(-1, 3)
    for colour in ("#0072B2", "#D55E00"):
        wanted = [int(colour[k : k + 2], 16) for k in (1, 3, 5)]
        assert (np.abs(picture.astype(int) - wanted).sum(1) < 12).sum() > 500, colour
    written = pd.read_csv(path.parent / "table.csv")
    assert list(written.columns) == list(table.COLUMNS)
    pd.testing.assert_frame_equal(written, summary_table([ants, streams]), check_dtype=False)
    text = (path.parent / "table.md").read_text().splitlines()
    assert len(text) == 2 + len(written)
    assert len({len(line) for line in text}) == 1


def test_same_folders_same_files(ants, tmp_path):
    one, other = (plot.draw_runs([ants], tmp_path / name).figures[0] for name in "ab")
    for end in (".png", ".svg"):
        assert one.with_suffix(end).read_bytes() == other.with_suffix(end).read_bytes()


def test_settings_that_differ_become_labels_and_seeds_do_not(tmp_path):
    for rate in (1e-4, 1e-5):
        for seed in range(2):
            operations = {"name": "continual_backprop", "operations": {"continual_backprop": {"rate": rate}}}
            folder = tmp_path / f"{rate}" / f"{seed}"
            agent_run(folder, seed=seed, steps=5_000)
            config = yaml.safe_load((folder / "config.yaml").read_text())
            (folder / "config.yaml").write_text(yaml.safe_dump(config | {"method": operations}))
    data = comparison.compare(folders.read_folders([tmp_path]))
    assert data.settings == ["continual backprop, rate 0.0001", "continual backprop, rate 1e-05"]
    assert [data.replicates(setting) for setting in data.settings] == [2, 2]


def test_how_a_run_was_trained_and_looked_at_makes_no_label(tmp_path):
    for fast in (True, False):
        folder = agent_run(tmp_path / f"{fast}", steps=5_000)
        config = yaml.safe_load((folder / "config.yaml").read_text())
        config["experiment"] |= {
            "fast": fast,
            "on_not_finite": "mark" if fast else "stop",
            "probe": {"every": 1 + fast},
        }
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
    assert len(comparison.compare(folders.read_folders([tmp_path])).settings) == 1


def test_a_killed_run_with_half_a_line_is_read(tmp_path):
    folder = agent_run(tmp_path / "run", steps=10_000)
    whole = len(pd.read_csv(folder / "metrics.csv"))
    with open(folder / "metrics.csv", "a") as file:
        file.write("12288,3.5,0.")
    assert len(folders.read_folder(folder).metrics) == whole


def test_nothing_to_read_is_one_clear_message(tmp_path, capsys):
    with pytest.raises(folders.FolderError, match=r"holds config\.yaml and metrics\.csv"):
        plot.draw_runs([tmp_path], tmp_path)
    with pytest.raises(folders.FolderError, match="is not a folder"):
        summary_table([tmp_path / "absent"])
    assert "no run in" in ended(capsys, plot.main, tmp_path)


def test_command_prints_the_table_and_the_paths(ants, tmp_path, capsys):
    plot.main([str(ants), "--output", str(tmp_path)])
    printed = capsys.readouterr().out
    assert "| continual backprop " in printed
    assert printed.rstrip().endswith(str(tmp_path / "figure.png"))


def test_command_shows_figure_and_table_in_tensorboard_above_the_runs(tmp_path):
    for seed in range(2):
        agent_run(tmp_path / f"ant/{seed}", seed=seed, steps=20_480)
    stream_run(tmp_path / "digits", tasks=4, step_sizes=(0.001, 0.01))
    for _ in range(2):  # the second drawing takes the place of the first
        plot.main([str(tmp_path / "ant"), str(tmp_path / "digits")])
    events = events_of(tmp_path / "comparison")
    assert set(events.Tags()["images"]) == {
        f"comparison/{name}" for name in ("slippery_ant", "permuted_digits", "permuted_digits_sweep")
    }
    (image,) = events.Images("comparison/permuted_digits")
    shown = np.asarray(Image.open(io.BytesIO(image.encoded_image_string)))
    drawn = np.asarray(Image.open(tmp_path / "permuted_digits.png").convert("RGB"))
    np.testing.assert_array_equal(shown, drawn)
    assert image.step == 20_480  # the ant's last step; the digits end at 7,188
    *_, text = events.Tensors("comparison/table/text_summary")
    assert text.tensor_proto.string_val[0].decode() == (tmp_path / "table.md").read_text()


def test_everything_goes_where_output_says(tmp_path):
    agent_run(tmp_path / "runs/0", seed=0, steps=20_480)
    before = sorted(tmp_path.glob("runs/**/*"))
    plot.main([str(tmp_path / "runs"), "--output", str(tmp_path / "elsewhere")])
    assert sorted(tmp_path.glob("runs/**/*")) == before
    assert {path.name for path in (tmp_path / "elsewhere").iterdir()} >= {"figure.png", "table.csv", "comparison"}


def test_records_hold_every_row_of_every_run_as_csv_and_parquet(tmp_path):
    pytest.importorskip("pyarrow")
    for seed in (3, 4):
        agent_run(tmp_path / f"ant/{seed}", seed=seed, steps=20_480)
    stream_run(tmp_path / "digits", tasks=4, seeds=2, step_sizes=(0.001, 0.01))
    for kind in ("csv", "parquet"):
        plot.main([str(tmp_path / "ant"), str(tmp_path / "digits"), "--records", str(tmp_path / f"out/all.{kind}")])
    table = pd.read_parquet(tmp_path / "out/all.parquet")
    pd.testing.assert_frame_equal(table, pd.read_csv(tmp_path / "out/all.csv"), check_dtype=False)
    ants = table[table["experiment"] == "slippery_ant"]
    assert list(ants.columns[:6]) == ["experiment", "method", "setting", "folder", "seed", "step"]
    for seed in (3, 4):
        one = ants[ants["seed"] == seed]
        own = pd.read_csv(tmp_path / f"ant/{seed}/metrics.csv")
        assert set(one["folder"]) == {str(tmp_path / f"ant/{seed}")}
        pd.testing.assert_frame_equal(one[own.columns].reset_index(drop=True), own, check_dtype=False)
    digits = table[table["experiment"] == "permuted_digits"]
    assert len(digits) == 4 * 4
    assert set(digits["setting"]) == {"backprop, step size 0.001", "backprop, step size 0.01"}
    assert set(digits["seed"]) == {0, 1}


def test_records_that_cannot_be_written_are_refused_before_anything_is_drawn(tmp_path, monkeypatch, capsys):
    agent_run(tmp_path / "ant", steps=20_480)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for name, message in (("a.xls", "must end in .csv or .parquet"), ("a.parquet", "pip install")):
        assert message in ended(capsys, plot.main, tmp_path / "ant", "--records", tmp_path / name)
    assert not (tmp_path / "ant/figure.png").exists()


def test_nice_width():
    assert estimates.nice_width(409_600, 60) == 10_000
    assert estimates.nice_width(20_000_000, 60) == 500_000
    assert estimates.nice_width(100, 50) == 2
    assert estimates.nice_width(50, 50) == 1


def test_binned_bridges_gaps_inside_only():
    records = pd.DataFrame(
        {"replicate": ["a"] * 4 + ["b"], "step": [1, 10, 35, 40, 15], "x": [1.0, 3.0, 8.0, 10.0, 7.0]}
    )
    values = estimates.binned(records, "x", position="step", edges=np.array([0, 10, 20, 30, 40, 50]))
    np.testing.assert_array_equal(values[0], [2.0, 2.0 + 7 / 3, 2.0 + 14 / 3, 9.0, np.nan])
    np.testing.assert_array_equal(values[1], [np.nan, 7.0, np.nan, np.nan, np.nan])


def test_estimate_uses_the_runs_that_are_there():
    values = np.array([[1.0, 2.0, np.nan], [3.0, np.nan, np.nan]])
    value, low, high = estimates.estimate(values)
    np.testing.assert_array_equal(value, [2.0, 2.0, np.nan])
    np.testing.assert_array_equal(low, [1.0, np.nan, np.nan])
    np.testing.assert_array_equal(high, [3.0, np.nan, np.nan])


def test_spread_keeps_order_and_distance():
    wanted = np.array([0.5, 0.5, 0.9, 0.52])
    centres = style.spread(wanted, np.full(4, 0.1))
    assert centres[2] == pytest.approx(0.9)
    assert centres[0] < centres[1] < centres[3] < centres[2]
    assert np.diff(np.sort(centres)).min() >= 0.1 - 1e-9
    assert np.mean(centres[[0, 1, 3]]) == pytest.approx(np.mean(wanted[[0, 1, 3]]))


def test_colours_of_methods_do_not_depend_on_the_company():
    alone = style.looks(["PPO"])["PPO"]
    assert style.looks(["continual backprop", "L2", "something new", "PPO"])["PPO"] == alone
    assert alone["label"] == "PPO"
    for labels in ([f"m{k}" for k in range(7)], [f"PPO, rate {k}" for k in range(7)]):
        assert len({(look["color"], str(look["linestyle"])) for look in style.looks(labels).values()}) == 7
    rates = style.looks(["PPO, rate 1", "L2", "PPO, rate 2"])
    assert rates["PPO, rate 1"]["color"] == rates["PPO, rate 2"]["color"] == alone["color"]
