import pytest
import torch

from continual_agents import plasticity

# batch of 4, width 4: unit 0 always 0; unit 1 always 1; unit 2 active once; unit 3 active three times
RELU = torch.tensor([[0.0, 1.0, 0.0, 2.0], [0.0, 1.0, 0.0, 0.0], [0.0, 1.0, 8.0, 2.0], [0.0, 1.0, 0.0, 4.0]])


def test_saturation_by_hand():
    torch.testing.assert_close(plasticity.saturation(RELU), torch.tensor([1.0, 0.0, 0.75, 0.25]))
    tanh = torch.tensor([[0.95, -0.95, 0.9], [0.99, 0.0, -0.91]])
    torch.testing.assert_close(plasticity.saturation(tanh, "tanh"), torch.tensor([1.0, 0.5, 0.5]))
    sigmoid = torch.tensor([[0.05, 0.95, 0.1, 0.5], [0.95, 0.5, 0.9, 0.02]])
    torch.testing.assert_close(plasticity.saturation(sigmoid, "sigmoid"), torch.tensor([1.0, 0.5, 0.0, 0.5]))


def test_dead_needs_the_whole_batch():
    assert plasticity.dead_units(RELU).tolist() == [True, False, False, False]
    tanh = torch.tensor([[0.95, -0.95, 0.0], [-0.99, 0.89, 0.0]])
    assert plasticity.dead_units(tanh, "tanh").tolist() == [True, False, False]


def test_dead_is_exact_for_batches_of_any_size():
    for batch in (3, 7, 49, 1000):  # 1/batch is not a binary fraction
        activations = torch.ones(batch, 2)
        activations[:, 0] = 0.0
        assert plasticity.dead_units(activations).tolist() == [True, False]


def test_dormancy_by_hand():
    # mean |h|: 0, 1, 2, 2; the layer's mean is 1.25
    expected = torch.tensor([0.0, 0.8, 1.6, 1.6])
    torch.testing.assert_close(plasticity.dormancy_scores(RELU), expected)
    assert plasticity.dormant_units(RELU).tolist() == [True, False, False, False]
    assert plasticity.dormant_units(RELU, 0.8).tolist() == [True, True, False, False]  # at the threshold counts


def test_a_layer_of_zeros_is_wholly_dormant():
    assert plasticity.dormancy_scores(torch.zeros(5, 3)).tolist() == [0.0, 0.0, 0.0]
    assert plasticity.dormant_units(torch.zeros(5, 3)).all()


def test_runs_dims_give_what_each_run_gives_alone():
    stack = torch.stack([RELU, RELU.flip(1), RELU * 3]).unflatten(0, (3, 1))
    for function in (
        plasticity.saturation,
        plasticity.dead_units,
        plasticity.dormancy_scores,
        plasticity.dormant_units,
    ):
        together = function(stack)
        assert together.shape == (3, 1, 4)
        for run in range(3):
            assert torch.equal(together[run, 0], function(stack[run, 0]))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: plasticity.saturation(RELU, "gelu"), ValueError, "kind='gelu'"),
        (lambda: plasticity.dead_units(torch.zeros(0, 4)), ValueError, r"\(0, 4\)"),
        (lambda: plasticity.dormancy_scores(torch.zeros(4)), ValueError, "batch, width"),
        (lambda: plasticity.dormant_units(RELU, -0.1), ValueError, "threshold=-0.1"),
        (lambda: plasticity.dead_units(torch.zeros(3, 4, dtype=torch.int64)), TypeError, "int64"),
    ],
)
def test_refusals_name_the_value(call, error, message):
    with pytest.raises(error, match=message):
        call()
