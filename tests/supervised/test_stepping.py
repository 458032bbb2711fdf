"""What can be said of the CUDA path without a GPU: the capture's bookkeeping, and that no step waits for the device."""

import contextlib
from collections.abc import Callable

import pytest
import torch

from supervised.networks import Mlp
from supervised.stacked.learner import StackedLearner
from supervised.stacked.steps import UNROLLED, Captured, Piece
from tests.supervised.helpers import CBP, examples, learner, method

NETWORK = Mlp(inputs=20, outputs=4, hidden=(16, 11))
METHODS = {
    "sgd": {},
    "momentum, l2": {"momentum": 0.9, "weight_decay": 1e-3},
    "adam, continual backprop": {"kind": "adam", "step_size": 1e-2, "operations": {"continual_backprop": CBP}},
    "continual backprop": {"operations": {"continual_backprop": CBP}},
    "l2 init": {"operations": {"l2_init": {"strength": 1e-2}}},
}


class Graph:
    """Stands in for `torch.cuda.CUDAGraph`: a replay does again, on the same buffers, what was captured."""

    replays = 0

    def __init__(self) -> None:
        self.captured: Piece | None = None

    def replay(self) -> None:
        assert self.captured is not None
        Graph.replays += 1
        self.captured._rehearse()


class Stream:
    def wait_stream(self, other: "Stream") -> None:
        pass


@pytest.fixture
def fake_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "graph", lambda graph: contextlib.nullcontext())
    monkeypatch.setattr(Graph, "replays", 0)


@pytest.mark.parametrize("name", METHODS)
def test_replays_of_a_capture_give_the_ordinary_numbers(fake_cuda: None, name: str) -> None:
    methods = [method(**METHODS[name])] * 3
    x, y = examples(95, 3, 1, NETWORK, loss="cross_entropy")
    ordinary, captured = (learner(NETWORK, methods, [0, 1, 2], loss="cross_entropy") for _ in range(2))
    captured._fast = captured._captured()
    assert isinstance(captured._fast, Captured)
    for piece in captured._fast.pieces:

        def and_remember(*examples: torch.Tensor, piece: Piece = piece, capture: Callable = piece._capture) -> None:
            capture(*examples)
            assert isinstance(piece.graph, Graph)
            piece.graph.captured = piece

        piece._capture = and_remember  # type: ignore[method-assign]
    assert torch.equal(ordinary.learn(x, y), captured.learn(x, y))  # the rehearsals of the capture left no trace
    for a, b in zip(ordinary.stack.tensors, captured.stack.tensors, strict=True):
        assert torch.equal(a, b)
    for key, value in ordinary.report().items():
        assert (captured.report()[key] == value).all()
    # replacements cut the chunks short
    fewest = len(x) // UNROLLED + len(x) % UNROLLED
    assert Graph.replays == fewest if "continual" not in name else fewest < Graph.replays < len(x)


@pytest.mark.parametrize(
    ("network", "operations"),
    [
        (Mlp(inputs=4, outputs=2, hidden=(3,), dropout=0.1), {}),
        (NETWORK, {"perturb": {"noise": 0.1}}),
        (NETWORK, {"continual_backprop": {"utility": "random"}}),
    ],
)
def test_what_draws_at_every_step_is_not_captured(network: Mlp, operations: dict) -> None:
    assert learner(network, [method(operations=operations)], [0], loss="cross_entropy")._captured() is None


@pytest.mark.parametrize("name", METHODS)
def test_no_step_and_no_replacement_waits_for_the_device(name: str) -> None:
    """On the meta device there are no values: whatever asked for one would raise."""
    stack = StackedLearner(NETWORK, [method(**METHODS[name])] * 3, [0, 1, 2], loss="cross_entropy", device="meta")
    x, y = examples(60, 3, 1, NETWORK, loss="cross_entropy")
    measures = stack.learn(x.to("meta"), y.to("meta"))
    assert measures.shape == (60, 3)
    if "continual_backprop" in METHODS[name].get("operations", {}):
        assert stack.operations["continual_backprop"].replaced.min() > 0  # type: ignore[attr-defined]


def test_asking_a_step_for_a_value_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    stack = StackedLearner(NETWORK, [method()], [0], loss="cross_entropy", device="meta")
    step = stack.optimizer.step
    monkeypatch.setattr(stack.optimizer, "step", lambda deltas, affines: (step(deltas, affines), bool(deltas[0].any())))
    x, y = examples(2, 1, 1, NETWORK, loss="cross_entropy")
    with pytest.raises(RuntimeError, match="meta"):
        stack.learn(x.to("meta"), y.to("meta"))
