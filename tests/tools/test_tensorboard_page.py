"""TensorBoard itself on real files: what its server says, and its page in a browser."""

import json
import re
import shutil
import urllib.parse
import urllib.request

import numpy as np
import pytest
from PIL import Image

from continual_agents.runs import Run, log_comparison
from tests.helpers import begun, photographed

RUN = "ppo/seed_0"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The address of a TensorBoard over one finished run and its comparison."""
    root = tmp_path_factory.mktemp("runs")
    config = {"experiment": {"name": "ant"}, "method": {"name": "ppo"}, "seed": 4}
    with Run.open(root / "ppo/seed_0", config) as run:
        for step in range(1, 40):
            rank = 30.0 - 0.5 * step
            run.log(step, {"return/mean": 10.0 * step, "plasticity/effective_rank": rank, "task/index": step // 10})
        run.loggers.video("video/policy", np.arange(3, dtype=np.uint8).repeat(300).reshape(3, 10, 10, 3), 39, 15)
        run.finish(39, {})
    Image.new("RGB", (60, 40), "#0072B2").save(root / "figure.png")
    for _ in range(2):
        log_comparison(root, 39, {"figure": root / "figure.png"}, {"table": "| n |\n|---|\n| 5 |"})
    # python -m tensorboard.main: the script of that name may not be on the path
    process = begun("tensorboard.main", "--logdir", str(root), "--port", "0", "--host", "127.0.0.1")
    try:
        assert process.stderr is not None
        found = None
        while not found:
            line = process.stderr.readline()
            assert line, "TensorBoard ended"
            found = re.search(r"http://[^/]+:\d+", line)
        yield found.group()
    finally:
        process.terminate()
        process.communicate()


def ask(server, path, **query):
    with urllib.request.urlopen(f"{server}/data/{path}?{urllib.parse.urlencode(query)}", timeout=60) as answer:
        return answer.read()


def wait_for_data(server):
    for _ in range(600):
        tags = json.loads(ask(server, "plugin/images/tags"))
        if set(tags) == {RUN, "comparison"}:
            return tags
    raise AssertionError(tags)


def test_tensorboard_serves_curves_overview_film_figure_and_table(server):
    tags = wait_for_data(server)
    assert set(tags[RUN]) == {"video/policy"}
    assert set(tags["comparison"]) == {"comparison/figure"}
    curve = json.loads(ask(server, "plugin/scalars/scalars", run=RUN, tag="glance/effective_rank"))
    assert [(step, round(value, 6)) for _, step, value in curve[:2]] == [(1, 1.0), (2, round(29 / 29.5, 6))]
    told = json.loads(ask(server, "plugin/scalars/tags"))[RUN]
    assert "mean return (sum of rewards)" in told["charts/episodic_return"]["description"]
    layout = json.loads(ask(server, "plugin/custom_scalars/layout"))
    (category,) = layout["category"]
    assert [chart["title"] for chart in category["chart"]][:2] == ["return", "effective rank"]
    pattern = category["chart"][-1]["multiline"]["tag"][0]
    drawn = json.loads(ask(server, "plugin/custom_scalars/scalars", run=RUN, tag=pattern))["tag_to_events"]
    assert set(drawn) == {"glance/return", "glance/effective_rank", "glance/task"}
    (film,) = json.loads(ask(server, "plugin/images/images", run=RUN, tag="video/policy", sample=0))
    assert ask(server, "plugin/images/individualImage", **dict(urllib.parse.parse_qsl(film["query"])))[:6] == b"GIF89a"
    # drawn twice at one step, shown once
    texts = json.loads(ask(server, "plugin/text/text", run="comparison", tag="comparison/table/text_summary"))
    assert len(texts) == 1
    assert "<td>5</td>" in texts[0]["text"]
    figures = json.loads(ask(server, "plugin/images/images", run="comparison", tag="comparison/figure", sample=0))
    assert [figure["step"] for figure in figures] == [39]


@pytest.mark.skipif(not shutil.which("chromium"), reason="needs a chromium browser")
def test_a_browser_shows_the_tensorboard_page(server, tmp_path):
    wait_for_data(server)
    pixels = photographed(tmp_path, f"{server}/#images", "1200,900", "--virtual-time-budget=20000")
    assert (pixels == (0x00, 0x72, 0xB2)).all(axis=1).sum() > 500  # the comparison's figure is on the page
