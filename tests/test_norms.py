"""Online normalisation against the paper's formulas, written with scalars."""

import torch
from torch import nn

from continual_agents.networks.norms import (
    BACKWARD_DECAY,
    EPSILON,
    FORWARD_DECAY,
    LayerNormOfRuns,
    OnlineNorm,
    OnlineNormOfRuns,
)


def test_online_norm_follows_the_published_recursions_one_number_at_a_time() -> None:
    width, steps = 3, 40
    generator = torch.Generator().manual_seed(0)
    xs, gs = (torch.randn(steps, width, generator=generator).double() * 2 + 1 for _ in range(2))
    layer = OnlineNormOfRuns(1, width, dtype=torch.float64)
    layer.gain.copy_(torch.tensor([0.5, 2.0, 1.5]))
    layer.offset.copy_(torch.tensor([0.1, 0.2, -0.3]))
    gain, offset = layer.gain.flatten().tolist(), layer.offset.flatten().tolist()
    mean, variance, error_y, error_1 = [0.0] * width, [1.0] * width, [0.0] * width, [0.0] * width
    for x, g in zip(xs.tolist(), gs.tolist(), strict=True):
        output, cache = layer.forward(torch.tensor(x).double().view(1, 1, -1), training=True)
        scale = [(v + EPSILON) ** -0.5 for v in variance]
        y = [(a - m) * s for a, m, s in zip(x, mean, scale, strict=True)]
        for k in range(width):
            variance[k] = FORWARD_DECAY * variance[k] + FORWARD_DECAY * (1 - FORWARD_DECAY) * (x[k] - mean[k]) ** 2
            mean[k] = FORWARD_DECAY * mean[k] + (1 - FORWARD_DECAY) * x[k]
        size = (sum(a * a for a in y) / width + EPSILON) ** -0.5
        expected = [a * size * w + b for a, w, b in zip(y, gain, offset, strict=True)]
        torch.testing.assert_close(output.flatten(), torch.tensor(expected).double())
        # backward through gain, layer scaling (by the quotient rule), then the two control processes
        gy = [a * w for a, w in zip(g, gain, strict=True)]
        inner = sum(a * b for a, b in zip(gy, y, strict=True))
        gy = [size * a - size**3 * b * inner / width for a, b in zip(gy, y, strict=True)]
        gx = []
        for k in range(width):
            a = gy[k] - (1 - BACKWARD_DECAY) * error_y[k] * y[k]
            error_y[k] += a * y[k]
            a = a * scale[k] - (1 - BACKWARD_DECAY) * error_1[k]
            error_1[k] += a
            gx.append(a)
        found, affine = layer.backward(torch.tensor(g).double().view(1, 1, -1), cache)
        torch.testing.assert_close(found.flatten(), torch.tensor(gx).double())
        torch.testing.assert_close(affine[0, 1], torch.tensor(g).double())


def test_layer_norm_is_torchs() -> None:
    generator = torch.Generator().manual_seed(0)
    x, g = (torch.randn(2, 5, 7, generator=generator).double() for _ in range(2))
    layer = LayerNormOfRuns(2, 7, dtype=torch.float64)
    layer.affine.copy_(torch.randn(2, 2, 7, generator=generator))
    output, cache = layer.forward(x, training=True)
    dx, affine = layer.backward(g, cache)
    for run in range(2):
        twin = nn.LayerNorm(7).double()
        with torch.no_grad():
            twin.weight.copy_(layer.affine[run, 0])
            twin.bias.copy_(layer.affine[run, 1])
        inputs = x[run].clone().requires_grad_()
        expected = twin(inputs)
        expected.backward(g[run])
        torch.testing.assert_close(output[run], expected.detach())
        torch.testing.assert_close(dx[run], inputs.grad)
        torch.testing.assert_close(affine[run], torch.stack([twin.weight.grad, twin.bias.grad]))


def test_online_norm_of_a_module_moves_in_gradient_passes_only_and_takes_any_leading_dims() -> None:
    layer = OnlineNorm(4)
    x = torch.randn(2, 3, 4) + 5
    with torch.no_grad():
        looked = layer(x)
    assert not layer.mean.any()
    assert torch.equal(layer(x), looked)
    assert layer.mean.any()
    with torch.no_grad():
        every = torch.func.vmap(layer)(x)
    torch.testing.assert_close(every, layer.eval()(x))
