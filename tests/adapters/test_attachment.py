import pytest
import torch
from peft import PeftModel
from pydantic import TypeAdapter
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    T5Config,
    T5ForConditionalGeneration,
)

from peftune.adapters import AdapterSection, attach, saved_form
from peftune.errors import ModelError
from peftune.export.adapter import save_adapter
from peftune.quantization.bnb4bit import Bnb4bitSection
from tests.adapters.tiny_llama import load, logits, train_step, trained_tensors

NF4 = Bnb4bitSection(method="bnb-nf4")
LINEAR = "down_proj, gate_proj, k_proj, lm_head, o_proj, q_proj, up_proj, v_proj"
ADAPTED = LINEAR.replace("lm_head, ", "")


def section(**keys):
    return TypeAdapter(AdapterSection).validate_python({"method": "lora", "r": 4} | keys)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"target_modules": ["q_prj"]},
            "adapter.target_modules: no linear layer named 'q_prj'. Did you mean q_proj? "
            f"The linear layers are: {LINEAR}.",
        ),
        (
            {"target_modules": ["q_proj", "self_attn"]},
            f"adapter.target_modules: no linear layer named 'self_attn'. The linear layers are: "
            f"{LINEAR}.",
        ),
        (
            {"modules_to_save": ["lm_hed"]},
            "adapter.modules_to_save: no module named 'lm_hed'. Did you mean lm_head? "
            "The modules are: act_fn, down_proj, embed_tokens, gate_proj, input_layernorm, k_proj, "
            "layers, lm_head, mlp, model, norm, o_proj, post_attention_layernorm, q_proj, "
            "rotary_emb, self_attn, up_proj, v_proj.",
        ),
        (
            {"modules_to_save": ["norm"]},
            "adapter.modules_to_save: norm would also take input_layernorm; write model.norm.",
        ),
        (
            {"target_modules": ["q_proj"], "modules_to_save": ["q_proj"]},
            "adapter.modules_to_save: q_proj is also in adapter.target_modules; "
            "name it in one of them.",
        ),
        (
            {"rank_pattern": {"down_prj": 8}},
            "adapter.rank_pattern: 'down_prj' matches no adapted layer. Did you mean down_proj? "
            f"The adapted layers are: {ADAPTED}.",
        ),
        (
            {"target_modules": ["q_proj"], "alpha_pattern": {"v_proj": 8}},
            "adapter.alpha_pattern: 'v_proj' matches no adapted layer. Did you mean q_proj? "
            "The adapted layers are: q_proj.",
        ),
        (
            {"r": 65, "init_lora_weights": "pissa"},
            "adapter.r: 65 is more than the 64 singular directions of "
            "model.layers.0.self_attn.q_proj; use 64 or less.",
        ),
    ],
)
def test_a_name_without_meaning_is_refused_in_one_line(keys, message, llama):
    with pytest.raises(ModelError) as error:
        attach(section(**keys), load(llama))
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_a_tied_head_is_no_target(tied_llama):
    with pytest.raises(ModelError, match=r"lm_head shares its weight .*modules_to_save: \[lm_head"):
        attach(section(target_modules=["lm_head"]), load(tied_llama))


def test_a_quantized_module_is_not_trained_in_full(llama):
    with pytest.raises(ModelError, match=r"modules_to_save: mlp is quantized"):
        attach(section(target_modules=["q_proj"], modules_to_save=["mlp"]), load(llama, NF4))


def test_ia3_without_a_default_for_the_architecture_is_refused(llama):
    model = load(llama)
    model.config.model_type = "novel"
    with pytest.raises(ModelError, match=r"no .* default for the architecture novel; list"):
        attach(TypeAdapter(AdapterSection).validate_python({"method": "ia3"}), model)


BFLOAT16_CASES = {
    "lora": {},
    "dora": {"method": "dora"},
    "full": {"modules_to_save": ["lm_head", "embed_tokens", "model.norm"]},
    "ia3": {"method": "ia3", "r": None},
    "pissa": {"init_lora_weights": "pissa"},
}


@pytest.mark.parametrize(
    ("case", "quantization"),
    [(case, None) for case in BFLOAT16_CASES]
    + [(case, NF4) for case in BFLOAT16_CASES if case != "pissa"],
    ids=lambda value: value if isinstance(value, str) else str(value and value.method),
)
def test_a_bfloat16_base_keeps_its_dtype_and_its_function(case, quantization, llama):
    base = load(llama, quantization, dtype="bfloat16")
    before = logits(base)
    frozen = {name: p.dtype for name, p in base.named_parameters()}
    keys = {"method": "lora", "r": 4} | BFLOAT16_CASES[case]
    chosen = {key: value for key, value in keys.items() if value is not None}
    adapted = attach(TypeAdapter(AdapterSection).validate_python(chosen), base)

    trained = [p for p in adapted.parameters() if p.requires_grad]
    assert {p.dtype for p in trained} == {torch.float32}
    assert {p.dtype for p in adapted.parameters() if not p.requires_grad} == set(frozen.values())
    # Two bfloat16 roundings of logits below 0.5.
    torch.testing.assert_close(logits(adapted), before, rtol=0, atol=0.004)
    loss, norm = train_step(adapted, torch.optim.AdamW(trained, lr=1e-3))
    assert loss > 0 and norm > 0


def test_dora_magnitudes_are_exact_row_norms_on_a_bfloat16_base(llama):
    adapted = attach(section(method="dora"), load(llama, dtype="bfloat16"))
    layer = adapted.base_model.model.model.layers[0].mlp.up_proj
    rows = layer.base_layer.weight.float().norm(dim=1)
    torch.testing.assert_close(layer.lora_magnitude_vector["default"].weight.data, rows)


@pytest.mark.parametrize("start", ["pissa", "olora"])
def test_only_the_residual_of_a_decomposed_bfloat16_weight_is_rounded(start, llama):
    base = load(llama, dtype="bfloat16")
    weight = base.model.layers[0].mlp.up_proj.weight.detach().float().clone()
    adapted = attach(
        section(r=60, lora_alpha=60, init_lora_weights=start, target_modules=["up_proj"]), base
    )
    layer = adapted.base_model.model.model.layers[0].mlp.up_proj
    error = layer.base_layer.weight.float() + layer.get_delta_weight("default") - weight
    assert error.norm() < 0.0005 * weight.norm()


@pytest.mark.parametrize("saved", ["lm_head", "embed_tokens"])
def test_tied_embeddings_are_trained_and_reloaded_as_one(saved, tied_llama, tmp_path):
    chosen = section(modules_to_save=[saved])
    adapted = attach(chosen, load(tied_llama))
    initial = trained_tensors(adapted)
    train_step(adapted, torch.optim.AdamW([p for p in adapted.parameters() if p.requires_grad]))
    model = adapted.base_model.model
    assert torch.equal(model.lm_head.weight, model.model.embed_tokens.weight)
    form = saved_form(chosen, initial, trained_tensors(adapted), adapted.peft_config["default"])
    save_adapter(tmp_path, form[1], form[0], base_model_name_or_path="tiny/llama")
    reloaded = PeftModel.from_pretrained(load(tied_llama), tmp_path)
    torch.testing.assert_close(logits(reloaded), logits(adapted), rtol=1e-6, atol=1e-6)


def test_tied_embeddings_under_other_names_are_not_trained_apart():
    model = GPT2LMHeadModel(GPT2Config(vocab_size=96, n_embd=64, n_layer=1, n_head=4))
    with pytest.raises(ModelError, match=r"transformer.wte and lm_head share one weight"):
        attach(section(modules_to_save=["wte"]), model)


def test_a_tied_encoder_decoder_is_not_trained_apart():
    """peft would put the embedding in the place of the output head."""
    sizes = {"d_model": 64, "d_kv": 16, "d_ff": 64, "num_layers": 1, "num_heads": 4}
    model = T5ForConditionalGeneration(T5Config(vocab_size=96, **sizes))
    with pytest.raises(ModelError, match=r"shared and lm_head share one weight"):
        attach(section(modules_to_save=["lm_head"]), model, "SEQ_2_SEQ_LM")


def test_the_embedding_of_a_classifier_is_tied_to_nothing():
    sizes = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1}
    model = BertForSequenceClassification(BertConfig(vocab_size=96, num_attention_heads=4, **sizes))
    adapted = attach(section(modules_to_save=["word_embeddings"]), model, "SEQ_CLS", ["classifier"])
    trained = {name for name, p in adapted.named_parameters() if p.requires_grad}
    assert any("word_embeddings.modules_to_save" in name for name in trained)
