"""A loop's steps as one CUDA graph: its bookkeeping without a GPU, and its numbers where there is one."""

import contextlib
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from continual_agents.methods import Method
from supervised.incremental import IncrementalLearner
from supervised.looped import LoopedLearner
from supervised.looped_graph import WARM, CapturedLoop
from supervised.networks import make_network
from tests.supervised.helpers import method

BUSY = {"rate": 0.05, "maturity": 3, "decay": 0.9, "utility": "adaptable_contribution"}
METHODS = {
    "momentum, l2": method(momentum=0.9, step_size=0.01, weight_decay=1e-3),
    "continual backprop": method(momentum=0.9, step_size=0.01, operations={"continual_backprop": BUSY}),
    "continual backprop, perturb": method(
        momentum=0.9, step_size=0.01, operations={"continual_backprop": BUSY, "perturb": {"noise": 1e-4}}
    ),
}
NETWORK = make_network(
    {"kind": "conv", "channels": [4, 5, 6], "kernels": [3, 2, 2], "hidden": [7, 7]}, (3, 16, 16), 2
)  # fmt: skip


class Loop(CapturedLoop):
    """Where a capture executes nothing and a replay takes the step on the same buffers, as with a GPU."""

    replays = 0
    capturing = False

    def _side_by_side(self, x: Tensor, y: Tensor) -> Tensor:
        if self.capturing:
            return torch.full((self.runs,), torch.nan)
        return super()._side_by_side(x, y)

    def replay(self) -> None:
        self.replays += 1
        self.measures.copy_(super()._side_by_side(self.x, self.y))


def looped(methods: list[Method], monkeypatch: pytest.MonkeyPatch, *, incremental: bool = False) -> LoopedLearner:
    """A learner with such a loop."""

    class Stream:
        def wait_stream(self, other: "Stream") -> None:
            pass

    @contextlib.contextmanager
    def capture(graph: Loop) -> Iterator[None]:
        graph.capturing = True
        yield
        graph.capturing = False

    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "graph", capture)
    seeds = list(range(len(methods)))
    if incremental:
        learner: LoopedLearner = IncrementalLearner(NETWORK, methods, seeds, loss="cross_entropy", seen=1)
    else:
        learner = LoopedLearner(NETWORK, methods, seeds, loss="cross_entropy")
    loop = Loop(learner._gradient_step, learner.runs, learner._baked)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: loop)
    learner._fast = loop
    return learner


def images(steps: int, runs: int = 2) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(steps, runs, 4, 3, 16, 16, generator=generator)
    return x, torch.randint(0, 2, (steps, runs, 4), generator=generator)


@pytest.mark.parametrize("name", METHODS)
def test_replays_give_the_loops_numbers_also_after_a_checkpoint(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = images(30)
    plain = LoopedLearner(NETWORK, [METHODS[name]] * 2, [0, 1], loss="cross_entropy")
    first, second = (looped([METHODS[name]] * 2, monkeypatch) for _ in range(2))
    loops = [first._fast, second._fast]
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: loops[0])
    measures = [first.learn(x[:17], y[:17])]
    second.learn(x[:2], y[:2])  # what it knows goes with the checkpoint that it loads
    second.load_state_dict(first.state_dict())
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: loops[1])
    measures.append(second.learn(x[17:], y[17:]))
    assert torch.equal(plain.learn(x, y), torch.cat(measures))
    for key, value in plain.trained().items():
        assert torch.equal(value, second.trained()[key])
    assert (plain.report()["replaced"] == second.report()["replaced"]).all()
    assert (plain.report()["replaced"] > 10).all() == name.startswith("continual backprop")
    assert [loop.replays for loop in loops] == [17 - WARM, 13 - WARM]  # type: ignore[union-attr]


def test_another_step_size_or_class_is_captured_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = images(20, 1)
    y = y * 0
    learners = [
        IncrementalLearner(NETWORK, [METHODS["momentum, l2"]], [0], loss="cross_entropy", seen=1),
        looped([METHODS["momentum, l2"]], monkeypatch, incremental=True),
    ]
    for learner in learners:
        assert isinstance(learner, IncrementalLearner)
        learner.learn(x[:6], y[:6])
        learner.scale_step_size(0.2)
        learner.learn(x[6:12], y[6:12])
        learner.start_increment(1, 2)
        learner.learn(x[12:], y[12:])
    for one, other in zip(*(learner.trained().values() for learner in learners), strict=True):
        assert torch.equal(one, other)
    assert learners[1]._fast.replays == 20 - 3 * WARM  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "other",
    [
        method(kind="adam"),
        method(operations={"redo": {}}),
        method(operations={"perturb": {"noise": 1e-4}, "continual_backprop": BUSY}),  # looks at perturbed weights
        method(operations={"continual_backprop": {"every": 2}}),
        method(operations={"continual_backprop": {"utility": "random"}}),
    ],
)
def test_what_is_not_the_same_every_step_is_not_captured(other: Method) -> None:
    assert not LoopedLearner(NETWORK, [other], [0], loss="cross_entropy")._one_graph(0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("name", METHODS)
def test_a_graph_on_a_gpu_learns_what_the_loop_learns(name: str) -> None:
    x, y = (part.cuda() for part in images(60))
    loop, graph = (
        LoopedLearner(NETWORK, [METHODS[name]] * 2, [0, 1], loss="cross_entropy", device="cuda", fast=fast)
        for fast in (False, True)
    )
    assert graph.code == "graph"
    torch.testing.assert_close(loop.learn(x, y), graph.learn(x, y), rtol=0, atol=0.26)  # one image of four
    torch.testing.assert_close(loop.trained(), graph.trained(), rtol=1e-3, atol=1e-4)
    assert (loop.report()["replaced"] == graph.report()["replaced"]).all()
