import sys

import numpy as np
import pytest
import torch

from continual_agents import plasticity
from tools import diagnose

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


class Evil:
    def __reduce__(self):
        return print, ("code in a checkpoint was run",)


def test_code_in_a_checkpoint_is_never_run(place, capsys):
    folder, _, _ = place
    torch.save({"net": Evil()}, folder / "evil.pt")
    with pytest.raises(SystemExit):
        diagnose.main([f"{folder}/net.py:Net", f"{folder}/evil.pt", "--data", "normal:20,4"])
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "asks for code to be run" in captured.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{}/net.py", "{}/weights.pt"], "module:name"),
        (["{}/absent.py:Net", "{}/weights.pt"], "no file"),
        (["{}/net.py:Absent", "{}/weights.pt"], "has no 'Absent'"),
        (["{}/net.py:nothing", "{}/weights.pt"], "made a int"),
        (["{}/net.py:Net", "{}/whole.pt"], "choose with --key from epoch, models"),
        (["{}/net.py:Net", "{}/whole.pt", "--key", "models.other"], "no 'other' there, only net"),
        (["{}/net.py:Net", "{}/weights.pt", "--arguments", '{{"hidden": 9}}'], "does not fit the network"),
        (["{}/net.py:Net", "{}/weights.pt", "--data", "noise"], "expected a .npy or .pt file"),
    ],
)
def test_refusals_say_what_to_do(place, capsys, words, message):
    folder, _, _ = place
    words = [word.format(folder) for word in words]
    with pytest.raises(SystemExit):
        diagnose.main(words if "--data" in words else [*words, "--data", "normal:20,4"])
    assert message in capsys.readouterr().err
