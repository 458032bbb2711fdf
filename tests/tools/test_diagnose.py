import argparse
import sys

import numpy as np
import pytest
import torch
import yaml

from continual_agents import plasticity
from continual_agents.runs import Checkpoints
from supervised import stacks
from supervised.group import make_group
from supervised.measures import diagnose as stream_measures
from tests.helpers import ended
from tests.tools.test_record import make_run
from tools import diagnose
from tools.command_line import compose_config, plain_config
from tools.stream import StreamJob

NET = """
from torch import nn

class Net(nn.Sequential):
    def __init__(self, hidden=7):
        super().__init__(
            nn.Linear(4, hidden), nn.ReLU(), nn.Linear(hidden, 5), nn.Tanh(), nn.Linear(5, 2)
        )

def nothing():
    return 3
"""


@pytest.fixture
def place(tmp_path):
    """A foreign module, its checkpoint inside a larger file, and data."""
    (tmp_path / "net.py").write_text(NET)
    net = diagnose.make_model(f"{tmp_path / 'net.py'}:Net", {})
    with torch.no_grad():
        net[0].bias[:3] = -100.0  # three dead units of seven
    torch.save({"epoch": 3, "models": {"net": net.state_dict()}}, tmp_path / "whole.pt")
    torch.save(net.state_dict(), tmp_path / "weights.pt")
    part = {name.replace("4.", "5."): value for name, value in net.state_dict().items()}
    torch.save(part, tmp_path / "part.pt")
    torch.save({"state": net.state_dict(), "best": np.float64(0.5)}, tmp_path / "scalar.pt")
    torch.save({"state": net.state_dict(), "args": argparse.Namespace(lr=1)}, tmp_path / "namespace.pt")
    data = np.random.default_rng(0).standard_normal((50, 4)).astype(np.float32)
    np.save(tmp_path / "data.npy", data)
    return tmp_path, net, torch.from_numpy(data)


def rows_of(text):
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    return [dict(zip(lines[0], line, strict=True)) for line in lines[2:]]


def test_table_of_a_foreign_checkpoint(place, capsys):
    folder, net, data = place
    diagnose.main([f"{folder}/net.py:Net", f"{folder}/whole.pt", "--key", "models.net", "--data", f"{folder}/data.npy"])
    first, second, whole = rows_of(capsys.readouterr().out)
    assert (first["layer"], first["units"]) == ("0", "7")
    hidden = net[1](net[0](data))
    dead = int((hidden == 0).all(0).sum())
    assert dead >= 3
    assert first["dead"] == f"{100 * dead / 7:.1f}%"
    assert float(first["effective rank"]) == pytest.approx(plasticity.effective_rank(hidden).item(), abs=5e-3)
    assert float(second["weight magnitude"]) == pytest.approx(net[2].weight.abs().mean().item(), abs=5e-4)
    assert (whole["layer"], whole["units"]) == ("whole network", "12")


def test_importable_factory_with_arguments_and_noise(place, capsys, monkeypatch):
    folder, _, _ = place
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "net", raising=False)
    torch.save(diagnose.make_model("net:Net", {"hidden": 3}).state_dict(), folder / "small.pt")
    diagnose.main(["net:Net", f"{folder}/small.pt", "--arguments", '{"hidden": 3}', "--data", "normal:20,4"])
    assert rows_of(capsys.readouterr().out)[0]["units"] == "3"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["{}/net.py:Net", "{}/weights.pt", "--arguments", '{{"hidden": 9}}'],
            "does not fit the network: 0.weight is [7, 4] there and [9, 4] in the network, 0.bias is [7] there",
        ),
        (
            ["{}/net.py:Net", "{}/part.pt"],
            "does not fit the network: it lacks 4.weight, 4.bias; it also holds 5.weight",
        ),
        (["{}/net.py:Net"], "is no run folder: a network needs its CHECKPOINT and --data"),
        (["{}/net.py:Net", "{}/scalar.pt"], "scalar.pt holds a numpy."),
        (
            ["{}/net.py:Net", "{}/namespace.pt"],
            "holds a argparse.Namespace beside the weights, which only code can read",
        ),
    ],
)
def test_refusals_say_what_to_do(place, capsys, words, message):
    folder, _, _ = place
    words = [word.format(folder) for word in words]
    words = words if "--data" in words else [*words, "--data", "normal:20,4"]
    assert message in ended(capsys, diagnose.main, *words)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "model._orig_mod.", "module.model."])
def test_prefixes_of_wrappers_are_taken_off_and_said(place, capsys, prefix):
    folder, net, _ = place
    wrapped = {prefix + name: value for name, value in net.state_dict().items()}
    torch.save({"state_dict": {**wrapped, "loss.weight": torch.ones(2)}}, folder / "wrapped.pt")
    arguments = [f"{folder}/net.py:Net", "--key", "state_dict", "--data", f"{folder}/data.npy"]
    diagnose.main([arguments[0], f"{folder}/wrapped.pt", *arguments[1:]])
    said = capsys.readouterr()
    assert f"the prefix '{prefix}' is taken off 6 names, 1 without it left aside" in said.err
    diagnose.main([f"{folder}/net.py:Net", f"{folder}/weights.pt", "--data", f"{folder}/data.npy"])
    assert said.out == capsys.readouterr().out


def test_a_run_folder_of_an_agent(tmp_path, capsys):
    folder = make_run(tmp_path / "run")
    diagnose.main([str(folder), "--data", "normal:20,28"])
    rows = rows_of(capsys.readouterr().out)
    assert [row["layer"] for row in rows] == ["actor.0", "actor.2", "critic.0", "critic.2", "whole network"]
    given = {row["layer"]: row["effective rank"] for row in rows}
    diagnose.main([str(folder)])  # with what its own policy sees
    assert {row["layer"]: row["effective rank"] for row in rows_of(capsys.readouterr().out)} != given


def test_a_run_folder_of_a_stream(tmp_path, capsys):
    folder = tmp_path / "run"
    words = ["experiment=permuted_digits", "scale=smoke", "experiment.methods=[backprop,dropout]"]
    config = plain_config(compose_config([*words, f"folder={folder}"]))
    folder.mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    plans = StreamJob(config).plans
    groups = [make_group(numbers, [plans[k] for k in numbers], device="cpu") for numbers in stacks(plans)]
    for group in groups:
        group.advance(40)
    Checkpoints(folder / "checkpoints").save(40, {"run": {"groups": [group.state_dict() for group in groups]}})
    diagnose.main([str(folder)])
    rows = rows_of(capsys.readouterr().out)
    assert [row["method"] for row in rows if row["layer"] == "whole network"] == ["backprop", "dropout"]
    for row in rows:
        if row["layer"] == "whole network":
            group = next(g for g in groups if plans[g.numbers[0]].method.name == row["method"])
            expected = stream_measures(group.learner, group.stream, 500)["plasticity/effective_rank"].mean()
            assert float(row["effective rank"]) == pytest.approx(expected, rel=5e-3)
    said = ended(capsys, diagnose.main, folder, "--data", "normal:5,3")
    assert "is a stream, whose networks are probed with its own examples" in said
