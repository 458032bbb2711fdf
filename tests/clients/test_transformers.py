"""BERT, GPT-2 and Llama of the package transformers, small and untrained: their MLP blocks, leak test and means."""

import pytest
import torch

from continual_agents import surgery
from continual_agents.surgery.finding import LAYERS, NORMS
from tests.surgery.checks import check

transformers = pytest.importorskip("transformers", exc_type=ModuleNotFoundError)


@pytest.fixture
def tables():
    """Registrations of a test end with it."""
    layers, norms = dict(LAYERS), dict(NORMS)
    yield
    for table, known in ((LAYERS, layers), (NORMS, norms)):
        table.clear()
        table.update(known)


SIZES = {
    "vocab_size": 12, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 10,
}  # fmt: skip
TOKENS = torch.tensor([[1, 5, 3, 7], [2, 2, 9, 4]])


def bert():
    return transformers.BertForSequenceClassification(transformers.BertConfig(**SIZES)).eval()


def test_bert() -> None:
    torch.manual_seed(0)
    net = bert()
    found = surgery.find(net, TOKENS)
    inner = [units for units in found if units.width == 10]
    assert [units.name for units in inner] == [f"bert.encoder.layer.{i}.intermediate.dense" for i in (0, 1)]
    for units in found:
        check(net, units, [0, 4], lambda: net(TOKENS).logits)


def test_gpt2(tables) -> None:
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=12, n_positions=8, n_embd=8, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0
    )
    net = transformers.GPT2LMHeadModel(config).eval()
    found = surgery.find(net, TOKENS)
    assert not len(found)
    assert found.left_out["lm_head"] == "output layer"
    assert "surgery.register(Conv1D, out={...}, inp={...})" in found.left_out["transformer.h.0.mlp.c_fc"]
    Conv1D = type(net.transformer.h[0].mlp.c_fc)
    surgery.register(Conv1D, out={"weight": 1, "bias": 0}, inp={"weight": 0}, bias={"weight": "bias"})
    found = surgery.find(net, passes=[{"input_ids": TOKENS}])
    assert [units.name for units in found] == [f"transformer.h.{i}.mlp.c_fc" for i in (0, 1)]
    for units in found:
        check(net, units, [0, 4], lambda: net(TOKENS).logits)


def test_llama(tables) -> None:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(**SIZES, num_key_value_heads=1, max_position_embeddings=8)
    net = transformers.LlamaForCausalLM(config).eval()
    for registered in (False, True):  # the norms stand in the stream of embeddings: nothing depends on knowing them
        if registered:
            surgery.register_norm(type(net.model.norm), {"weight": 1.0})
        found = surgery.find(net, TOKENS)
        assert [units.name for units in found] == [f"model.layers.{i}.mlp.gate_proj" for i in (0, 1)]
        assert [len(units.incoming) for units in found] == [2, 2]  # gate and value are one unit
    for units in found:
        check(net, units, [0, 4], lambda: net(TOKENS).logits)
