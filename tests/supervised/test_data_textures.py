import numpy as np
import pytest
import torch
from torch import nn

from supervised.data import Textures, textures
from tests.helpers import descend


def test_layout():
    array = Textures(classes=3, images=4, side=16).array()
    assert (array.shape, array.dtype) == ((3, 4, 3, 16, 16), np.uint8)
    assert Textures(images=2)[0].shape == (2, 3, 32, 32)
    assert len(Textures()) == 1000


def test_a_class_depends_on_seed_side_and_number_alone():
    few = Textures(classes=2, images=3, side=16, seed=5)
    many = Textures(classes=900, images=50, side=16, seed=5)
    np.testing.assert_array_equal(few[1], many[1][:3])
    np.testing.assert_array_equal(few.array()[1], few[1])
    assert not np.array_equal(few[0], few[1])
    assert not np.array_equal(few[0], Textures(classes=2, images=3, side=16, seed=6)[0])
    assert not np.array_equal(few[0][0], few[0][1])


def test_the_tint_of_a_class_and_of_its_images():
    made = Textures(classes=2, images=300, side=16, seed=0)
    kind = made._draws(1, 0)
    kind.uniform(size=6), kind.standard_normal(9), kind.uniform()  # orientations, wave lengths, colours, slope
    tint = 127.5 + 48 * 0.12 * kind.standard_normal(3)
    colours = made[1].astype(float).mean((2, 3))  # an image's mean varies by 48 * .25 = 12 around that of its class
    np.testing.assert_allclose(colours.mean(0), tint, atol=4 * 12 / 300**0.5)
    np.testing.assert_allclose(colours.std(0), 12, rtol=0.15)


def test_gratings_are_where_a_readable_twin_puts_them(monkeypatch):
    """Without noise, tint and turn an image is the sum of three gratings, computed here pixel by pixel."""
    for name in ("NOISE", "IMAGE_TINT", "CLASS_TINT", "TURN"):
        monkeypatch.setattr(textures, name, 0.0)
    sizes = Textures(classes=8, images=2, side=8, seed=3)
    kind, strengths, phases = (sizes._draws(7, quantity) for quantity in (0, 4, 3))
    angle, length, colour = kind.uniform(0, np.pi, 3), kind.uniform(3, 10, 3), kind.standard_normal((3, 3))
    strength, phase = strengths.uniform(0.2, 1, (2, 3)), phases.uniform(0, 2 * np.pi, (2, 3))
    expected = np.zeros((2, 3, 8, 8))
    for image, channel, row, column, grating in np.ndindex(2, 3, 8, 8, 3):
        place = np.cos(angle[grating]) * row + np.sin(angle[grating]) * column
        wave = np.sin(2 * np.pi * place / length[grating] + phase[image, grating])
        tone = colour[grating, channel] / np.linalg.norm(colour[grating])
        expected[image, channel, row, column] += strength[image, grating] * tone * wave
    assert np.abs(sizes[7] - np.clip(127.5 + 48 * expected, 0, 255)).max() <= 0.5 + 1e-9


def test_noise_has_the_slope_of_its_class():
    noise = Textures(classes=1, images=300, side=32)._noise(0, 1.0)
    np.testing.assert_allclose(noise.std((1, 2, 3)), textures.NOISE)
    np.testing.assert_allclose(noise.mean((2, 3)), 0, atol=1e-12)
    assert np.abs(noise - Textures(classes=2, images=300, side=32)._noise(1, 1.0)).mean() > textures.NOISE / 2
    power = np.abs(np.fft.rfft2(noise)).mean((0, 1))
    assert power[0, 2] / power[0, 8] == pytest.approx(4, rel=0.05)  # amplitude falls as 1 / frequency


@pytest.mark.parametrize("wrong", [{"classes": 0}, {"images": 0}, {"side": 7}, {"seed": -1}])
def test_numbers_out_of_range(wrong):
    with pytest.raises(ValueError, match="classes and images at least 1, side at least 8, seed at least 0"):
        Textures(**wrong)


@pytest.mark.parametrize("number", [-1, 3])
def test_a_class_that_is_not_there(number):
    with pytest.raises(IndexError, match=f"class {number} of 3 texture classes"):
        Textures(classes=3, images=1)[number]


def accuracy(net, train, test, *, step_size, epochs, generator):
    """Test accuracy of a network after training on `(images, labels)` in batches of 100."""
    optimizer = torch.optim.SGD(net.parameters(), step_size, momentum=0.9)
    for _ in range(epochs):
        for rows in torch.randperm(len(train[0]), generator=generator).split(100):
            descend(nn.functional.cross_entropy(net(train[0][rows]), train[1][rows]), optimizer)
    with torch.no_grad():
        return (net(test[0]).argmax(1) == test[1]).float().mean().item()


def convolutions(side):
    """The network of Dohare et al. (2024) for pairs of ImageNet classes."""
    body: list[nn.Module] = []
    for inputs, outputs, kernel in ((3, 32, 5), (32, 64, 3), (64, 128, 3)):
        body += [nn.Conv2d(inputs, outputs, kernel), nn.ReLU(), nn.MaxPool2d(2)]
    flat = nn.Sequential(*body, nn.Flatten())(torch.zeros(1, 3, side, side)).shape[1]
    fully = [nn.Linear(flat, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 2)]
    net = nn.Sequential(*body, nn.Flatten(), *fully)
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            nn.init.zeros_(module.bias)
    return net


@pytest.mark.slow
def test_oriented_filters_tell_classes_apart_far_better_than_pixels():
    """What the docstring of Textures states, on its four pairs; about two minutes on one core."""
    made, linear, conv = Textures(classes=20, images=700), [], []
    labels = torch.arange(2)
    for pair in (0, 4, 6, 9):
        generator = torch.Generator().manual_seed(pair)
        torch.manual_seed(pair)  # of the networks' weights
        two = [torch.from_numpy(made[2 * pair + k]).float() / 255 - 0.5 for k in range(2)]
        train = torch.cat([images[:600] for images in two]), labels.repeat_interleave(600)
        test = torch.cat([images[600:] for images in two]), labels.repeat_interleave(100)
        settings = {"epochs": 10, "generator": generator}
        pixels = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 2))
        linear.append(accuracy(pixels, train, test, step_size=0.001, **settings))
        conv.append(accuracy(convolutions(32), train, test, step_size=0.01, **settings))
    print(f"linear {np.mean(linear):.3f}, conv {np.mean(conv):.3f}")
    assert 0.55 < np.mean(linear) < 0.8
    assert np.mean(conv) > np.mean(linear) + 0.15
