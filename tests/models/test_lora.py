"""Low-rank adapters: what they begin with, what is trained, and what merging and saving keep."""

import pytest
import torch
from torch import nn

import functrain as ft
from functrain.checkpoint import read_safetensors, write_safetensors
from functrain.models.lora import LoRALinear, add_lora, load_lora, lora_state_dict, merge_lora

BATCH = (torch.linspace(-1, 1, 24, dtype=torch.float64).view(6, 4), torch.tensor([0, 1, 2, 0, 1, 2]))


def network():
    torch.manual_seed(0)
    body = nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 8), nn.Tanh())
    return nn.Sequential(body, nn.Linear(8, 3)).double()


def trained(model, updates=4):
    state = ft.init_state(model, ft.classification(), ft.optim.adamw(0.05), precision="fp64")
    for _ in range(updates):
        state, _ = ft.train_step(state, BATCH)
    return state


def test_adapters_begin_with_the_models_outputs_and_leave_the_model_alone():
    model = network().eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    adapted = add_lora(model, rank=2)
    assert torch.equal(adapted(BATCH[0]), model(BATCH[0]))
    ft.to_module(trained(adapted))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert sum(type(module) is LoRALinear for module in model.modules()) == 0


def test_nothing_but_the_adapters_and_what_is_named_is_trained():
    adapted = add_lora(network(), ["0.*"], rank=2, trained=["1.bias"])
    state = trained(adapted)
    expected = {"0.0.lora_down", "0.0.lora_up", "0.3.lora_down", "0.3.lora_up", "1.bias"}
    changed = {name for name, p in adapted.named_parameters() if not torch.equal(p, state.params[name])}
    assert changed == expected == set(state.recipe.network.trainable)


def test_merged_weights_give_the_same_outputs():
    """Up to the rounding of sums of 16 products."""
    adapted = ft.to_module(trained(add_lora(network(), rank=2, alpha=3.0))).eval()
    merged = merge_lora(adapted)
    assert {type(module) for module in merged.modules()} == {type(module) for module in network().modules()}
    assert merged.state_dict().keys() == network().state_dict().keys()
    torch.testing.assert_close(merged(BATCH[0]), adapted(BATCH[0]), rtol=1e-12, atol=1e-12)
    assert not torch.allclose(merged(BATCH[0]), network().eval()(BATCH[0]), atol=1e-2)
    assert all(parameter.requires_grad for parameter in merged.parameters())


def test_saved_adapters_give_the_same_bits_with_the_model_that_they_adapt(tmp_path):
    adapted = ft.to_module(trained(add_lora(network(), "0.*", rank=2, alpha=3.0, trained=["1.*"]))).eval()
    write_safetensors(lora_state_dict(adapted), tmp_path / "adapters.safetensors")
    tensors = read_safetensors(tmp_path / "adapters.safetensors")
    assert not {"0.0.weight", "0.3.weight", "0.1.weight"} & tensors.keys()
    loaded = load_lora(network(), tensors).eval()
    assert torch.equal(loaded(BATCH[0]), adapted(BATCH[0]))
    flags = [{name: p.requires_grad for name, p in each.named_parameters()} for each in (loaded, adapted)]
    assert flags[0] == flags[1]


def test_a_step_of_adapters_is_that_of_the_merged_weights_gradient():
    """d loss / d up is scale * (d loss / d W) down^T, and d loss / d down is 0 while up is."""
    adapted, plain = add_lora(network(), "1", rank=2, alpha=3.0), network()
    for model in (adapted, plain):
        nn.functional.cross_entropy(model(BATCH[0]), BATCH[1]).backward()
    layer, weight = adapted[1], plain[1].weight
    torch.testing.assert_close(layer.lora_up.grad, 1.5 * weight.grad @ layer.lora_down.T, rtol=1e-12, atol=1e-14)
    assert not layer.lora_down.grad.any()
    assert layer.weight.grad is None


def test_a_tied_weight_stays_tied_until_it_is_merged():
    torch.manual_seed(0)
    table = nn.Embedding(5, 4)
    model = nn.Sequential(table, nn.Linear(4, 5, bias=False))
    model[1].weight = table.weight
    adapted = add_lora(model, "1", rank=1)
    with torch.no_grad():
        adapted[1].lora_up.fill_(1.0)
    assert adapted[0].weight is adapted[1].weight
    merged, tokens = merge_lora(adapted), torch.tensor([[3]])
    assert torch.equal(merged[0].weight, table.weight)
    torch.testing.assert_close(merged(tokens), adapted(tokens))


def test_a_layer_that_is_used_twice_has_one_adapter():
    torch.manual_seed(0)
    shared = nn.Linear(4, 4)
    adapted = add_lora(nn.Sequential(shared, shared))
    assert adapted[0] is adapted[1]
    assert sorted(lora_state_dict(adapted)) == ["0.lora_down", "0.lora_scale", "0.lora_up"]


def test_attention_reads_its_output_weight_itself_so_that_layer_is_left_out():
    adapted = add_lora(nn.TransformerEncoderLayer(8, 2, 16), rank=1)
    names = {path for path, module in adapted.named_modules() if isinstance(module, LoRALinear)}
    assert names == {"linear1", "linear2"}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: add_lora(network(), rank=0), "rank must be a whole number of at least 1, got 0"),
        (lambda: add_lora(network(), alpha=0.0), "alpha must be greater than 0 and finite, got 0.0"),
        (lambda: add_lora(network(), "0.1"), r"layers: the pattern '0.1' fits no linear layer.* are 0.0, 0.3, 1"),
        (lambda: add_lora(network(), trained=["2.*"]), r"trained: the pattern '2.\*' fits no parameter"),
        (lambda: add_lora(nn.Sequential(nn.ReLU())), "The linear layers are none"),
        (lambda: add_lora(add_lora(network())), "the model has adapters already; merge_lora"),
        (lambda: merge_lora(network()), "the model has no adapter; add_lora"),
        (lambda: lora_state_dict(network()), "the model has no adapter; add_lora"),
        (lambda: load_lora(network(), network().state_dict()), "there is no adapter among the tensors"),
        (lambda: load_lora(network()[0], lora_state_dict(add_lora(network(), "1"))), "adapt the layer '1'"),
        (
            lambda: load_lora(nn.Sequential(nn.Linear(5, 16)), lora_state_dict(add_lora(network()[0], "0"))),
            r"'0.lora_down' does not fit the model: \[8, 4\] in the tensors, \[8, 5\] in the model",
        ),
    ],
)
def test_refuses_what_does_not_fit(call, message):
    with pytest.raises(ValueError, match=message):
        call()
