"""Classes that arrive in increments: the stream, its augmentation, the growing output, the best epoch."""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from supervised.draws import Draw, numpy_draws, torch_draws
from supervised.group import make_group
from supervised.incremental import IncrementalLearner
from supervised.networks import make_network
from supervised.plans import Plan
from supervised.residual import ResNet
from supervised.streams.augmentation import Augmentation
from supervised.streams.images import ClassImages
from supervised.streams.incremental import ClassIncremental, incremental_digits
from supervised.streams.table import make_stream
from tests.supervised.helpers import method, tensors_of

DIGITS = {
    "kind": "incremental_digits", "train_images": 10, "test_images": 4, "validation_images": 2, "increment": 5,
    "batch": 10, "crop": 1,
}  # fmt: skip
RESNET = {"kind": "resnet", "channels": [4, 6], "blocks": 1}
NETWORK = ResNet(size=8, inputs=3, outputs=6, channels=(4, 6), blocks=1)
SURGERY = {"rate": 0.05, "maturity": 3, "decay": 0.9, "utility": "contribution"}


def images(classes: int = 6, count: int = 10, side: int = 8) -> ClassImages:
    """Image `number` of class `k` is one value, `20 k + number`, so that it can be told what is shown."""
    value = 20 * torch.arange(classes)[:, None] + torch.arange(count)
    return ClassImages.of("numbered", value[..., None, None, None].expand(-1, -1, 3, side, side).to(torch.uint8))


def numbered(seeds: list[int], **settings) -> ClassIncremental:
    plain = {"crop": 0, "flip": False, "rotate": 0.0, "milestones": [2]}
    sizes = {"increment": 2, "train_images": 6, "validation_images": 1, "test_images": 3, "epochs": 3, "batch": 4}
    return ClassIncremental(seeds, images(), **{**plain, **sizes, **settings})


def values(stream: ClassIncremental, x: Tensor) -> Tensor:
    """What `images` wrote into them."""
    return (x[..., 0, 0, 0] * stream.spread[0] + stream.mean[0]).round().long()


def slowly_augmented(image: Tensor, down: int, right: int, mirrored: bool, degrees: float, border: int) -> Tensor:
    """One image `[colours, side, side]`, pixel by pixel."""
    side = image.shape[-1]
    if mirrored:
        image = image.flip(-1)
    padded = functional.pad(image, (border,) * 4, mode="reflect") if border else image
    image = padded[:, border + down : border + down + side, border + right : border + right + side]
    turned, middle, angle = torch.zeros_like(image), (side - 1) / 2, np.deg2rad(degrees)
    for row in range(side):
        for column in range(side):
            up, along = middle - row, column - middle  # a turn counter-clockwise by -angle leads back
            source_along = np.cos(angle) * along + np.sin(angle) * up
            source_up = -np.sin(angle) * along + np.cos(angle) * up
            y, x = int(np.rint(middle - source_up)), int(np.rint(middle + source_along))
            if 0 <= y < side and 0 <= x < side:
                turned[:, row, column] = image[:, y, x]
    return turned


def test_augmented_images_are_those_of_a_slow_twin() -> None:
    augmentation = Augmentation(crop=3, flip=True, rotate=25.0)
    drawn = torch.from_numpy(augmentation.draw(np.random.default_rng(0), 40))
    assert set(drawn[:, 0].tolist()) == set(range(-3, 4)) == set(drawn[:, 1].tolist())
    assert set(drawn[:, 2].tolist()) == {0, 1}
    assert drawn[:, 3].min() >= 0
    assert 20 < drawn[:, 3].max() <= 25
    pictures = torch.rand(40, 3, 9, 9, generator=torch.Generator().manual_seed(0))
    index, inside = augmentation.sources(drawn, 9)
    found = pictures.flatten(-2).gather(-1, index[:, None].expand(-1, 3, -1))
    found = (found * inside[:, None]).unflatten(-1, (9, 9))
    for picture, one, how in zip(pictures, found, drawn.tolist(), strict=True):
        down, right, mirrored, degrees = how
        expected = slowly_augmented(picture, int(down), int(right), bool(mirrored), degrees, 3)
        torch.testing.assert_close(one, expected, rtol=0, atol=0)


def test_a_stream_gives_its_images_augmented_by_the_draws_of_seed_task_and_epoch() -> None:
    pixels = torch.randint(0, 256, (4, 5, 3, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    stream = ClassIncremental(
        [5], ClassImages.of("noise", pixels), increment=2, train_images=4, validation_images=0, test_images=1, epochs=2,
        batch=8, crop=2, flip=True, rotate=30.0,
    )  # fmt: skip
    shown = [stream.next(1) for _ in range(6)]  # one step an epoch, two in the second task
    x, y = (torch.cat(part)[4:, 0].flatten(0, 1) for part in zip(*shown, strict=True))
    order = numpy_draws(5, Draw.ORDER, 1, 1).permutation(16)
    draws = Augmentation(crop=2, flip=True, rotate=30.0).draw(numpy_draws(5, Draw.AUGMENTATION, 1, 1), 16)
    classes = numpy_draws(5, Draw.CLASSES).permutation(4)
    train = pixels[:, :4].float()
    mean, spread = train.mean((0, 1, 3, 4))[:, None, None], train.std((0, 1, 3, 4), unbiased=False)[:, None, None]
    for place, (number, how) in enumerate(zip(order, draws, strict=True)):
        assert y[place] == number // 4
        normal = (pixels[classes[number // 4], number % 4] - mean) / spread
        expected = slowly_augmented(normal, int(how[0]), int(how[1]), bool(how[2]), how[3], 2)
        torch.testing.assert_close(x[place], expected, rtol=1e-4, atol=1e-4)


def test_tasks_grow_and_step_sizes_fall_where_they_should() -> None:
    stream = numbered([0])
    assert [stream.task_start(task) for task in range(6)] == [0, 9, 27, 54, 81, 108]  # 3 epochs of 3, 6, 9, 9 steps
    assert [stream.seen(task) for task in range(4)] == [2, 4, 6, 6]
    factors = []
    for position in (0, 5, 6, 8, 9, 20, 21, 26, 27):
        stream.position = position
        factors.append(stream.step_factor)
    assert factors == [1, 1, 0.2, 0.2, 1, 1, 0.2, 0.2, 1]


def test_every_epoch_shows_all_classes_so_far_and_nothing_that_is_held_out() -> None:
    stream = numbered([0, 3])
    arrived: list[dict[int, int]] = [{}, {}]
    for task, seen in enumerate((2, 4, 6)):
        for _ in range(3):
            shown = []
            while len(shown) < seen * 6 // 4:
                x, y = stream.next(1)
                shown.append((values(stream, x[0]), y[0]))
            value, label = (torch.cat(part, 1) for part in zip(*shown, strict=True))
            for run in range(2):
                pairs = {(int(k), int(v) // 20) for v, k in zip(value[run], label[run], strict=True)}
                assert len(pairs) == seen, "a class has one label"
                arrived[run] = dict(pairs)
                assert set(arrived[run]) == set(range(seen))
                assert sorted((value[run] % 20).tolist()) == sorted(list(range(6)) * seen)
        for part, numbers in (("validation", {6}), ("test", {7, 8, 9})):
            for x, y in stream.held_out(part, most=5):
                for run in range(2):
                    value = values(stream, x[run])
                    assert set((value % 20).tolist()) <= numbers
                    assert [arrived[run][k] for k in y[run].tolist()] == (value // 20).tolist()
        assert set((values(stream, stream.evaluation(99)) % 20).unique().tolist()) == {7, 8, 9}
        assert stream.test()[0].shape == (2, seen * 3, 3, 8, 8)
        assert task == stream.place(stream.position - 1)[0]
    assert arrived[0] != arrived[1], "each run has an order of its own"


@pytest.mark.parametrize("stop", [1, 4, 9, 10, 26])
def test_a_stream_continues_exactly_and_a_run_is_the_same_alone(stop: int) -> None:
    settings = {"kind": "incremental_digits", "train_images": 6, "test_images": 2, "validation_images": 1}
    settings |= {"increment": 2, "epochs": 3, "batch": 4, "crop": 2, "milestones": [1]}
    together, alone, again = (make_stream(settings, seeds) for seeds in ([4, 9], [9], [4, 9]))
    seen = 0
    while seen < stop:
        seen += len(together.next(stop - seen)[0])
    again.load_state_dict(together.state_dict())
    alone.position = stop
    for _ in range(3):
        x, y = together.next(2)
        other = again.next(2)
        assert all(map(torch.equal, (x, y), other))
        one = alone.next(2)
        assert all(map(torch.equal, (x[:, 1:], y[:, 1:]), one))


def test_the_digits_are_scikit_learns() -> None:
    from sklearn.datasets import load_digits

    stream = incremental_digits([0], increment=1, train_images=100, validation_images=20, test_images=54, batch=20)
    bunch = load_digits()
    for digit in (0, 8):
        expected = np.rint(bunch.images[bunch.target == digit][:174] * 255 / 16)
        np.testing.assert_array_equal(stream.pixels[digit, :, 0].numpy(), expected)


class Grown(nn.Module):
    """The slow twin: an output layer that really has as many rows as there are classes."""

    def __init__(self, network: ResNet, seed: int, classes: int):
        super().__init__()
        self.body = network.module(seed)
        self.seed, self.weight, self.bias = seed, torch.empty(0, 6), torch.empty(0)
        self.grow(0, classes)

    def grow(self, task: int, classes: int) -> None:
        if task:
            self.weight, self.bias = self.body.head.weight.data, self.body.head.bias.data
        more = classes - len(self.weight)
        drawn = torch.empty(more, 6).uniform_(-(0.5**0.5), 0.5**0.5, generator=torch_draws(self.seed, Draw.HEAD, task))
        self.body.head = nn.Linear(6, classes)
        self.body.head.weight.data = torch.cat([self.weight, drawn])
        self.body.head.bias.data = torch.cat([self.bias, torch.zeros(more)])

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


def test_outputs_grow_as_those_of_a_network_with_a_larger_and_larger_last_layer() -> None:
    learner = IncrementalLearner(
        NETWORK, [method(momentum=0.9, step_size=0.05, weight_decay=1e-2)], [7], loss="cross_entropy", seen=2
    )
    twin = Grown(NETWORK, 7, 2)
    momentum: dict[str, Tensor] = {}
    generator = torch.Generator().manual_seed(0)
    for task, seen in enumerate((2, 4, 6)):
        learner.start_increment(task, seen)
        if task:
            twin.grow(task, seen)
        for step in range(6):
            factor = 1.0 if step < 4 else 0.2
            learner.scale_step_size(factor)
            x, y = torch.randn(8, 3, 8, 8, generator=generator), torch.randint(0, seen, (8,), generator=generator)
            learner.learn(x[None, None], y[None, None])
            twin.train()
            twin.zero_grad()
            functional.cross_entropy(twin(x), y).backward()
            for name, parameter in twin.body.named_parameters():
                gradient = parameter.grad + 1e-2 * parameter.data
                old = momentum.get(name, torch.zeros_like(gradient))
                fill = torch.zeros(len(gradient) - len(old), *gradient.shape[1:])
                momentum[name] = 0.9 * torch.cat([old, fill]) + gradient
                parameter.data -= 0.05 * factor * momentum[name]
        module = learner.modules[0]
        for (name, parameter), other in zip(twin.body.named_parameters(), module.parameters(), strict=True):
            torch.testing.assert_close(parameter, other[: len(parameter)], rtol=1e-3, atol=1e-5, msg=name)
        assert not module.head.weight[seen:].any()
        assert not module.head.bias[seen:].any()
        x = torch.randn(1, 5, 3, 8, 8, generator=generator)
        twin.eval()
        torch.testing.assert_close(learner.predict(x)[0], twin(x[0]), rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(learner.evaluate(x)[0], learner.predict(x))


@pytest.mark.parametrize(
    "operations", [{"reset": {"layers": "all"}}, {"reset": {"layers": "head"}}, {"perturb": {"noise": 0.1}}]
)
def test_rows_of_classes_to_come_are_0_after_whatever_happens_at_a_task(operations: dict) -> None:
    learner = IncrementalLearner(NETWORK, [method(operations=operations)], [0], loss="cross_entropy", seen=2)
    for task, seen in enumerate((2, 4)):
        learner.start_increment(task, seen)
        assert not learner.modules[0].head.weight[seen:].any()
        assert learner.modules[0].head.weight[:seen].any() or ("head" in str(operations) and task)


def test_a_fresh_network_has_nothing_of_the_old_one() -> None:
    learner = IncrementalLearner(
        NETWORK, [method(momentum=0.9, operations={"reset": {"layers": "all"}})], [3], loss="cross_entropy", seen=2
    )
    learner.start_increment(0, 2)
    learner.learn(torch.randn(5, 1, 8, 3, 8, 8), torch.randint(0, 2, (5, 1, 8)))
    assert learner.modules[0].norm.running_mean.any()
    learner.start_increment(1, 4)
    expected = dict(NETWORK.module(3, start=1).state_dict())
    for name, value in learner.modules[0].state_dict().items():
        if not name.startswith("head"):
            assert torch.equal(value, expected[name]), name
    assert not learner.optimizers[0].state


def test_a_task_ends_with_the_weights_of_its_best_epoch() -> None:
    learner = IncrementalLearner(NETWORK, [method()] * 2, [0, 1], loss="cross_entropy", seen=2)
    learner.start_increment(0, 2)
    kept = []
    for accuracy in ([0.5, 0.9], [0.7, 0.8], [0.7, 0.2]):
        learner.learn(torch.randn(2, 2, 4, 3, 8, 8), torch.randint(0, 2, (2, 2, 4)))
        kept.append([copy.deepcopy(dict(module.state_dict())) for module in learner.modules])
        learner.keep_best(np.array(accuracy))
    again = IncrementalLearner(NETWORK, [method()] * 2, [0, 1], loss="cross_entropy", seen=2)
    again.load_state_dict(learner.state_dict())
    for one in (learner, again):
        np.testing.assert_array_equal(one.take_best(), [0.7, 0.9])
        for run, epoch in ((0, 1), (1, 0)):
            for name, value in one.modules[run].state_dict().items():
                assert torch.equal(value, kept[epoch][run][name]), name
    learner.start_increment(1, 4)
    assert np.isnan(learner.take_best()).all()


def test_epochs_are_compared_and_the_best_one_ends_the_task(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = {**DIGITS, "train_images": 4, "epochs": 2, "milestones": [1]}
    plan = Plan(method(step_size=0.5), RESNET, stream, 0)
    group = make_group([0], [plan], device="cpu")
    seen, taken, step_sizes = [], [], []
    keep, take = group.learner.keep_best, group.learner.take_best
    monkeypatch.setattr(group.learner, "keep_best", lambda one: seen.append((group.stream.position, one)) or keep(one))
    monkeypatch.setattr(group.learner, "take_best", lambda: taken.append((group.stream.position, take())))
    while group.stream.position < 12:
        group.advance(12)
        step_sizes.append(group.learner.optimizers[0].param_groups[0]["lr"])
    assert [position for position, _ in seen] == [2, 4, 8, 12]  # epochs of 2 steps, then of 4
    assert [position for position, _ in taken] == [4, 12]
    assert step_sizes == pytest.approx([0.5, 0.1, 0.5, 0.1])
    for (_, best), epochs in zip(taken, (seen[:2], seen[2:]), strict=True):
        assert best == max(accuracy for _, accuracy in epochs)
    # the accuracy of the last validation is that of the weights, unless better ones were put back
    x, y = next(group.stream.held_out("validation"))
    assert (group.learner.predict(x).argmax(-1) == y).double().mean().item() == taken[-1][1]


def test_surgery_renews_units_of_the_residual_net_and_their_norms() -> None:
    stream = {**DIGITS, "epochs": 4, "milestones": [3]}
    methods = [{"continual_backprop": SURGERY}, {"redo": {"threshold": 0.9, "period": 5}}]
    for one in (method(operations=operations) for operations in methods):
        group = make_group([0, 1], [Plan(one, RESNET, stream, seed) for seed in (0, 1)], device="cpu")
        alone = make_group([0], [Plan(one, RESNET, stream, 1)], device="cpu")
        for some in (group, alone):
            while some.stream.position < 60:
                some.advance(60)
        row, single = group.row(20), alone.row(20)
        assert {key: values[1] for key, values in row.items()} == pytest.approx(
            {key: values[0] for key, values in single.items()}, nan_ok=True, rel=1e-12
        )
        assert (row["surgery/replaced"] > 0).all()
        assert all(torch.equal(a[1], b[0]) for a, b in zip(
            group.learner.trained().values(), alone.learner.trained().values(), strict=True
        ))  # fmt: skip
        assert (row["task/classes"] == 10).all()
        assert all(tensor.isfinite().all() for tensor in tensors_of(group.state_dict()))


def test_the_published_network_has_the_published_shapes() -> None:
    with torch.device("meta"):
        module = make_network({"kind": "resnet"}, (3, 32, 32), 100)
    assert isinstance(module, ResNet)
    network = module.module(0)
    # ResNet-18 for 32x32: 17 convolutions of 3x3, 3 shortcuts, one linear layer; 11.2 million weights
    assert sum(isinstance(one, nn.Conv2d) for one in network.modules()) == 20
    assert sum(parameter.numel() for parameter in network.parameters()) == 11_220_132
    assert network.conv.weight.abs().max() <= (6 / 27) ** 0.5
    with torch.no_grad():
        assert network.eval().blocks(torch.zeros(1, 64, 32, 32)).shape == (1, 512, 4, 4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"validation_images": -1}, "stream.validation_images=-1: at least 0"),
        ({"gamma": 0.0}, "stream.gamma=0.0: a factor above 0"),
        ({"rotate": -1.0}, "rotate=-1.0: pixels of at least 0, degrees from 0 to 360"),
        ({"crops": 1}, "stream.crops is unknown to kind=incremental_digits: did you mean 'crop'"),
    ],
)
def test_bad_settings_are_told_in_one_line(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_stream({**DIGITS, **settings}, [0])
