import torch

from peftune.adapters import attach, parameter_groups
from peftune.adapters.lora import LoraSection
from peftune.quantization.bnb8bit import Bnb8bitSection, dequantize
from tests.adapters.tiny_llama import batch, load, logits, train_step
from tests.dequantized import dequantize_model

INT8 = Bnb8bitSection(method="bnb-int8")


def test_an_evaluation_in_between_changes_no_step(llama):
    assert _losses(load(llama, INT8), evaluate=True) == _losses(load(llama, INT8), evaluate=False)


def test_training_and_evaluation_see_the_dequantized_weights(llama):
    model, plain = load(llama, INT8), load(llama, INT8)
    dequantize_model(plain)
    evaluated = logits(model)
    torch.testing.assert_close(evaluated, logits(plain), rtol=1e-6, atol=1e-6)
    assert torch.equal(model.train()(batch()).logits, evaluated)


def test_a_weight_is_an_integer_times_its_row_scale_before_and_after_use(llama):
    model, original = load(llama, INT8), load(llama).model.layers[0].mlp.up_proj.weight
    layer = model.model.layers[0].mlp.up_proj
    before = dequantize(layer)
    logits(model)
    assert torch.equal(dequantize(layer), before)
    half_a_level = original.abs().amax(dim=1, keepdim=True) / 127 / 2
    # The weight passes through float16 on its way: one part in 2048.
    assert ((before - original).abs() <= 1.01 * half_a_level + original.abs() / 2048).all()


def test_autocast_leaves_the_bias_alone(llama):
    model = load(llama, INT8)
    bias = model.model.layers[0].self_attn.o_proj.bias
    before = bias.data.clone()
    with torch.autocast("cpu", torch.bfloat16):
        model(batch())
    assert torch.equal(bias.data, before) and bias.dtype == torch.float32


def _losses(model, evaluate) -> list[tuple[float, float]]:
    torch.manual_seed(0)
    section = LoraSection(method="lora", r=4)
    adapted = attach(section, model)
    groups = parameter_groups(section, adapted.named_parameters(), 1e-2, 0.0)
    optimizer = torch.optim.AdamW(groups)
    losses = []
    for _ in range(5):
        losses.append(train_step(adapted, optimizer))
        if evaluate:
            logits(adapted)
    return losses
