"""The streams: what they show, that runs are independent, and that they continue anywhere."""

import numpy as np
import pytest
import torch

from supervised.draws import Draw, numpy_draws
from supervised.streams.class_pairs import ClassPairs
from supervised.streams.growing import GrowingImages
from supervised.streams.images import ClassImages, Images
from supervised.streams.permuted import PermutedImages
from supervised.streams.regression import SlowlyChangingRegression
from supervised.streams.table import make_stream


def images(count: int = 30, pixels: int = 12) -> Images:
    generator = torch.Generator().manual_seed(0)
    return Images("made", torch.rand(count, pixels, generator=generator), torch.arange(count) % 3, 3)


def class_images(classes: int = 5, count: int = 8) -> ClassImages:
    """Every pixel of an image says which class (hundreds) and number (units) it is."""
    pixels = 10 * torch.arange(classes)[:, None] + torch.arange(count)
    return ClassImages.of("made", pixels[..., None, None, None].expand(-1, -1, 3, 4, 4).to(torch.uint8))


STREAMS = {
    "regression": lambda seeds: SlowlyChangingRegression(seeds, change_every=23),
    "redrawn": lambda seeds: SlowlyChangingRegression(seeds, change_every=23, redraw_all=True),
    "permuted": lambda seeds: PermutedImages(seeds, images()),
    "often permuted": lambda seeds: PermutedImages(seeds, images(), change_every=13),
    "seldom permuted": lambda seeds: PermutedImages(seeds, images(), change_every=70),
    "growing": lambda seeds: GrowingImages(
        seeds, images(), test_images=6, train_images=24, fractions=(0.25, 1.0), epochs=3, batch=3
    ),
    "pairs": lambda seeds: ClassPairs(seeds, class_images(), train_images=6, test_images=2, epochs=2, batch=4),
}


def take(stream, steps: int, most: int = 7) -> tuple[torch.Tensor, torch.Tensor]:
    parts = []
    while steps:
        x, y = stream.next(min(most, steps))
        assert 1 <= len(x) == len(y) <= min(most, steps)
        parts.append((x, y))
        steps -= len(x)
    return torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts])


@pytest.mark.parametrize("name", STREAMS)
def test_a_run_sees_the_same_alone_and_in_chunks_of_any_size(name: str) -> None:
    x, y = take(STREAMS[name]([4, 9, 1]), 150)
    for most in (1, 150):
        alone_x, alone_y = take(STREAMS[name]([9]), 150, most)
        assert torch.equal(alone_x[:, 0], x[:, 1])
        assert torch.equal(alone_y[:, 0], y[:, 1])
    assert not torch.equal(x[:, 0], x[:, 1])


@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize("stop", [0, 1, 12, 13, 23, 24, 46, 60, 69])
def test_a_stream_continues_from_any_step(name: str, stop: int) -> None:
    whole = STREAMS[name]([2, 5])
    if stop:
        take(whole, stop)
    fresh = STREAMS[name]([2, 5])
    fresh.load_state_dict(whole.state_dict())
    assert torch.equal(fresh.evaluation(5), whole.evaluation(5))
    for a, b in zip(take(whole, 90), take(fresh, 90), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", STREAMS)
def test_a_chunk_never_crosses_the_end_of_a_task(name: str) -> None:
    stream = STREAMS[name]([0])
    for _ in range(40):
        left = stream.task_steps - stream.position % stream.task_steps
        assert len(stream.next(1000)[0]) <= left


def test_regression_targets_are_those_of_the_threshold_network_by_hand() -> None:
    stream = SlowlyChangingRegression([3], change_every=50)
    x, y = take(stream, 120)
    weights, thresholds, out = stream._target[0]
    assert set(np.unique(weights)) == {-1.0, 1.0} == set(np.unique(out))
    for inputs, target in zip(x[:, 0, 0].numpy(), y[:, 0, 0, 0].numpy(), strict=True):
        expected = 0.0
        for unit in range(100):
            threshold = 0.7 * 21 - sum(1 for w in weights[:, unit] if w < 0)
            fires = sum(w * i for w, i in zip(weights[:, unit], inputs, strict=True)) > threshold
            expected += out[unit] * fires
        assert target == pytest.approx(expected)
    assert thresholds.shape == (100,)


def test_one_slow_bit_flips_per_task_and_the_constant_stays() -> None:
    x, _ = take(SlowlyChangingRegression(range(20), change_every=10), 60)
    slow = x[:, :, 0, 1:16].reshape(6, 10, 20, 15)
    assert (slow == slow[:, :1]).all()
    assert ((slow[1:, 0] != slow[:-1, 0]).sum(-1) == 1).all()
    assert (x[..., 0] == 1).all()
    random = x[:, :, 0, 16:]
    assert 0.4 < random.mean() < 0.6


def test_redrawing_changes_about_half_of_the_slow_bits() -> None:
    x, _ = take(SlowlyChangingRegression(range(40), change_every=5, redraw_all=True), 50)
    slow = x[::5, :, 0, 1:16]
    assert 0.4 < (slow[1:] != slow[:-1]).float().mean() < 0.6


def test_each_image_is_shown_once_per_task_with_one_permutation() -> None:
    data = images()
    stream = PermutedImages([0, 1], data)
    orders = []
    for _ in range(3):
        x, y = take(stream, 30)
        for run in range(2):
            # sorting the pixels undoes any permutation, and then every image is there exactly once
            shown = x[:, run, 0].sort(-1).values
            whole = data.pixels.sort(-1).values
            assert torch.equal(shown[shown[:, 0].argsort()], whole[whole[:, 0].argsort()])
            number = torch.stack([(whole == one).all(-1).nonzero()[0, 0] for one in shown])
            assert torch.equal(data.labels[number], y[:, run, 0])
            order = torch.stack(
                [
                    (data.pixels[n][:, None] == pixels).float().argmax(0)
                    for n, pixels in zip(number, x[:, run, 0], strict=True)
                ]
            )
            assert (order == order[0]).all()
            orders.append(tuple(order[0].tolist()))
    assert len(set(orders)) == 6


def test_no_copy_of_the_images_is_made_per_run() -> None:
    data = images(2000, 64)
    stream = PermutedImages(range(50), data)
    own = sum(v.numel() * v.element_size() for k, v in vars(stream).items() if isinstance(v, torch.Tensor))
    assert stream.images.pixels.data_ptr() == data.pixels.data_ptr()
    assert own < 50 * (2000 + 64) * 8 + 1


def test_growing_data_adds_to_what_a_task_trains_on_and_never_shows_the_held_out_images() -> None:
    made = Images("made", torch.arange(30.0)[:, None].expand(-1, 12), torch.arange(30) % 3, 3)
    stream = GrowingImages([7], made, test_images=6, train_images=24, fractions=(0.25, 0.5, 1.0), epochs=2, batch=3)
    order = np.random.default_rng([7, 13]).permutation(30)
    assert stream.task_steps == 2 * 24 // 3
    assert stream.test()[0][0, :, 0].tolist() == order[:6].tolist()
    assert stream.evaluation(4)[0, :, 0].tolist() == order[:4].tolist()
    for task, count in enumerate((6, 12, 24, 24)):  # after the last fraction it stays
        x, y = take(stream, 16)
        assert torch.equal(y, x[..., 0].long() % 3)
        for epoch, shown in enumerate(x[..., 0].flatten().split(count)):
            assert shown.tolist() == numpy_draws(7, Draw.ORDER, task, epoch).permutation(order[6 : 6 + count]).tolist()


def test_pairs_show_every_class_once_before_any_again_and_test_on_unseen_images() -> None:
    stream = ClassPairs([0, 7], class_images(6), train_images=6, test_images=2, epochs=3, batch=4)
    seen: list[set[int]] = [set(), set()]
    for _ in range(3):
        x, y = take(stream, stream.task_steps)
        value = (x[:, :, :, 0, 0, 0] * 255).round().long()
        inputs, labels = stream.test()
        for run in range(2):
            classes, numbers = value[:, run] // 10, value[:, run] % 10
            assert len(set(classes.unique().tolist())) == 2
            assert (numbers < 6).all()
            # every image of both classes once per epoch, and a class has one label
            assert sorted(value[:3, run].flatten().tolist()) == sorted(value[3:6, run].flatten().tolist())
            assert len(value[:3, run].unique()) == 12
            label_of = {(int(c), int(label)) for c, label in zip(classes.flatten(), y[:, run].flatten(), strict=True)}
            assert len(label_of) == 2
            tested = (inputs[run, :, 0, 0, 0] * 255).round().long()
            assert set((tested % 10).tolist()) == {6, 7}
            assert {(int(v) // 10, int(label)) for v, label in zip(tested, labels[run], strict=True)} == label_of
            assert not seen[run] & set(classes.unique().tolist())
            seen[run] |= set(classes.unique().tolist())
    assert seen == [set(range(6))] * 2


def test_bad_settings_are_told_in_one_line() -> None:
    with pytest.raises(ValueError, match="stream.bits is unknown to kind=regression: did you mean 'units'"):
        make_stream({"kind": "regression", "bits": 3}, [0])
