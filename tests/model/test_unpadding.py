"""Rows without padding inside a model: what goes in, what attention sees, and who is served."""

from contextlib import nullcontext
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.nn import functional
from transformers import (
    AlbertConfig,
    AlbertForMaskedLM,
    FalconConfig,
    FalconForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    PreTrainedModel,
)
from transformers.masking_utils import causal_mask_function, sliding_window_causal_mask_function

from peftune.model import attention, unequal_rows
from peftune.model.attention import shared_mask
from peftune.model.devices import standing_for
from peftune.model.documents import Documents, documents_of, reading_of
from peftune.model.short_rows import WIDTHS
from peftune.model.unpadding import is_unpadded, unpad

MASK = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1], [1, 0, 0, 0]])


def documents() -> Documents:
    return documents_of(MASK)


def test_tokens_stand_one_after_another_and_go_back() -> None:
    padded = torch.arange(24.0).view(3, 4, 2) + 1
    tokens = documents().unpadded(padded)
    assert tokens[0, :, 0].tolist() == [1, 3, 9, 11, 13, 15, 17]
    assert torch.equal(documents().padded(tokens), padded * MASK[..., None])


def test_what_all_rows_share_is_repeated_by_position() -> None:
    shared = torch.arange(4.0).view(1, 4, 1)
    assert documents().unpadded(shared).flatten().tolist() == [0, 1, 0, 1, 2, 3, 0]


def test_rows_of_one_length_are_not_copied() -> None:
    whole = documents_of(torch.ones(2, 3, dtype=torch.int64))
    padded = torch.randn(2, 3, 5)
    assert whole.unpadded(padded).data_ptr() == padded.data_ptr()
    assert torch.equal(whole.padded(whole.unpadded(padded)), padded)


def test_gradients_go_back_to_their_tokens() -> None:
    padded = torch.randn(3, 4, 2, requires_grad=True)
    documents().padded(documents().unpadded(padded) * 2).sum().backward()
    assert padded.grad is not None
    assert torch.equal(padded.grad, 2.0 * MASK[..., None].expand(3, 4, 2))


@pytest.mark.parametrize(
    ("mask_function", "plain"),
    [
        (causal_mask_function, True),
        (sliding_window_causal_mask_function(4), True),
        (sliding_window_causal_mask_function(2), False),
    ],
    ids=["causal", "wide window", "narrow window"],
)
def test_only_a_window_that_is_narrower_than_the_rows_is_a_mask(
    mask_function: Any, plain: bool
) -> None:
    with reading_of({"attention_mask": MASK}):
        mask = shared_mask(3, 4, 4, mask_function, attention_mask=MASK.bool())
    assert (mask is None) == plain
    if mask is not None:
        assert mask.shape == (1, 1, 4, 4)
        assert mask[0, 0].int().tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1]]


SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 32}
OTHERS: dict[str, Any] = {
    "falcon": lambda: FalconForCausalLM(FalconConfig(**SIZES, alibi=True)),
    "mamba": lambda: MambaForCausalLM(
        MambaConfig(hidden_size=16, num_hidden_layers=2, vocab_size=32, state_size=4)
    ),
    "albert": lambda: AlbertForMaskedLM(
        AlbertConfig(**SIZES, embedding_size=16, intermediate_size=32)
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_code_that_cannot_be_served_is_left_as_it_is(name: str) -> None:
    model: PreTrainedModel = OTHERS[name]()
    ids = torch.randint(0, 32, (2, 5))
    before = model.eval()(input_ids=ids).logits
    unpad(model)
    assert not is_unpadded(model)
    with reading_of({"attention_mask": torch.ones_like(ids)}):
        assert torch.equal(model(input_ids=ids).logits, before)


def llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(**SIZES, intermediate_size=32, num_key_value_heads=1)
    return LlamaForCausalLM(config).eval()


def test_a_kernel_that_the_user_chose_stays() -> None:
    model = llama()
    model.set_attn_implementation("eager")
    unpad(model)
    assert not is_unpadded(model)


def test_layers_compute_tokens_and_no_padding() -> None:
    model, seen = llama(), SimpleNamespace(shapes=[])
    unpad(model)
    model.model.layers[1].mlp.register_forward_hook(
        lambda _module, given, _made: seen.shapes.append(tuple(given[0].shape))
    )
    batch = {"input_ids": torch.randint(0, 32, (3, 4)), "attention_mask": MASK}
    with reading_of(batch):
        assert model(**batch, use_cache=False).logits.shape == (3, 4, 32)
    model(**batch, use_cache=False)
    assert seen.shapes == [(1, 7, 16), (3, 4, 16)]


def test_generation_is_that_of_the_model_itself() -> None:
    plain, served = llama(), llama()
    unpad(served)
    batch = {"input_ids": torch.tensor([[0, 5, 6], [7, 8, 9]]), "max_new_tokens": 5}
    batch |= {"attention_mask": torch.tensor([[0, 1, 1], [1, 1, 1]]), "do_sample": False}
    assert torch.equal(plain.generate(**batch), served.generate(**batch))


def test_an_error_inside_leaves_nothing_behind() -> None:
    model = llama()
    unpad(model)
    batch = {"input_ids": torch.randint(0, 32, (3, 4)), "attention_mask": MASK}

    def fail(*_: Any) -> None:
        raise RuntimeError("inside")

    handle = model.model.layers[0].mlp.register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="inside"), reading_of(batch):
        model(**batch, use_cache=False)
    handle.remove()
    alone = llama()(**batch, use_cache=False).logits
    assert torch.equal(model(**batch, use_cache=False).logits, alone)


def by_definition(
    query: Any, key: Any, value: Any, starts: Any, others: Any, *_: Any, **more: Any
) -> Any:
    """torch's kernel for GPUs, as it is documented."""
    assert starts.dtype == others.dtype == torch.int32
    rows = []
    for (a, b), (c, d) in zip(pairwise(starts.tolist()), pairwise(others.tolist()), strict=True):
        q, k, v = (one.transpose(0, 1) for one in (query[a:b], key[c:d], value[c:d]))
        causal = more["window_size"] == (-1, 0)
        made = functional.scaled_dot_product_attention(
            q, k, v, is_causal=causal, scale=more["scale"]
        )
        rows.append(made.transpose(0, 1))
    return torch.cat(rows)


def test_the_kernel_for_unequal_rows_is_called_as_documented(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, calls = llama(), []
    batch = {"input_ids": torch.randint(0, 32, (3, 4)), "attention_mask": MASK}
    unpad(model)
    with reading_of(batch):
        expected = model(**batch, use_cache=False).logits

    def kernel(*given: Any, **more: Any) -> Any:
        calls.append(given[5:])
        return by_definition(*given, **more)

    monkeypatch.setattr(attention, "has_kernel", lambda query, value: True)
    monkeypatch.setattr(unequal_rows, "varlen_attn", kernel)
    with reading_of(batch):
        found = model(**batch, use_cache=False).logits
    assert calls == [(4, 4)] * 2
    torch.testing.assert_close(found[MASK.bool()], expected[MASK.bool()])


def test_short_rows_in_bfloat16_are_attended_in_float32_on_a_cpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    rows, most = torch.empty(1, 2, 9, 4, dtype=torch.bfloat16), attention.LONGEST_WIDE
    assert attention.kernel_dtype(rows, most) is torch.float32
    assert attention.kernel_dtype(rows, most + 1) is torch.bfloat16
    assert attention.kernel_dtype(rows.double(), most) is torch.float64


def test_rows_that_buckets_take_are_attended_in_float32_on_every_device() -> None:
    rows = torch.empty(1, 2, 9, 4, dtype=torch.bfloat16, device="meta")
    with standing_for("cuda", nullcontext()):
        assert attention.kernel_dtype(rows, WIDTHS[-1]) is torch.float32
        assert attention.kernel_dtype(rows, WIDTHS[-1] + 1) is torch.bfloat16
