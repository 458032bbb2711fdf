"""The guide's snippets run, and print what the guide says."""

import contextlib
import io
import re
from pathlib import Path

import torch

from continual_agents.surgery.finding import LAYERS

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "surgery.md"


def test_the_guide_is_what_the_code_prints() -> None:
    known = dict(LAYERS)
    torch.manual_seed(0)
    names: dict = {"__name__": "guide"}
    blocks = re.findall(r"```python\n(.*?)```(?:\n```text\n(.*?)```)?", GUIDE.read_text(), re.S)
    assert len(blocks) >= 9
    try:
        for code, printed in blocks:
            out = io.StringIO()
            with contextlib.redirect_stdout(out):
                exec(compile(code, str(GUIDE), "exec"), names)
            assert out.getvalue() == printed, code
    finally:
        LAYERS.clear()
        LAYERS.update(known)
    assert names["cbp"].report()["age_mean/0"] == 5
