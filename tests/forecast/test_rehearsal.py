"""A trace against the real thing: parameters exactly, memory as torch's allocator counts it."""

from typing import Any

import pytest
import torch

from peftune.context import Run
from peftune.engines.engine import Engine
from peftune.forecast.calls import Asking, counted_modules
from peftune.forecast.forecast import loading_bytes
from peftune.forecast.measuring import allocations
from peftune.forecast.rehearsal import Rehearsal, rehearse
from peftune.forecast.tracing import tracing
from peftune.selftest.memory import largest_micro_batch
from peftune.training.draws import row_draws
from peftune.training.loop import Training, named_batch, training_nll_sum
from tests.forecast.conftest import Tree, made, planned

NF4 = {"quantization": {"method": "bnb-nf4"}}


def changed(tree: Tree, section: str, **keys: Any) -> Tree:
    return {**tree, section: {**tree.get(section, {}), **keys}}


@pytest.mark.parametrize("name", ["decoder", "encoder-decoder", "encoder"])
def test_parameters_are_those_of_the_model(trees: dict[str, Tree], name: str) -> None:
    found = rehearse(planned(trees[name]))

    def use(context: Run, engine: Engine) -> None:
        every = list(engine.module.named_parameters())
        for trains in (True, False):
            real = [p for _, p in every if p.requires_grad is trains]
            assert found.count(trains) == sum(p.numel() for p in real)
            assert found.total(trains) == sum(p.numel() * p.element_size() for p in real)
        assert [one.name for one in found.parameters] == [name for name, _ in every]

    made(trees[name], use)


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("decoder", {}),
        ("decoder", NF4),
        ("encoder-decoder", {}),
        ("encoder", {}),
        ("decoder", {"recomputed": True}),
        ("decoder", {"recomputed": "selective"}),
        ("decoder", {"lora_dropout": 0.1}),
    ],
)
def test_the_peak_is_that_of_the_allocator(
    trees: dict[str, Tree], name: str, keys: dict[str, Any]
) -> None:
    tree = changed(trees[name], "train", per_device_train_batch_size=4)
    if "recomputed" in keys:
        tree = changed(tree, "train", gradient_checkpointing=keys["recomputed"])
    if "lora_dropout" in keys:
        tree = changed(tree, "adapter", lora_dropout=keys["lora_dropout"])
    if "quantization" in keys:
        tree |= NF4
    found = rehearse(planned(tree))
    (activations, peak) = measured(tree)
    assert found.training.parts["activations"] == pytest.approx(activations, rel=0.08)
    assert found.training.total == pytest.approx(peak, rel=0.08)


def measured(tree: Tree) -> tuple[int, int]:
    """Bytes of two forward and backward passes on the largest micro-batch, alone and with everything
    that the step before left."""
    sizes: list[int] = []

    def use(context: Run, engine: Engine) -> None:
        training = context.training(engine)
        share = largest_micro_batch(training)
        passes(training, share)
        engine.step()
        with allocations(torch.device("cpu")) as found:
            passes(training, share)
        sizes.extend((found.peak - found.start, static_bytes(engine) + found.peak - found.start))

    made(tree, use)
    return sizes[0], sizes[1]


class Reached(Exception):
    """The output layer is called."""


@pytest.mark.parametrize("name", ["decoder", "encoder-decoder"])
@pytest.mark.parametrize(("recomputed", "most"), [(False, 0.95), (True, 0.9)])
def test_the_forward_pass_ends_where_words_are_scored(
    trees: dict[str, Tree], name: str, recomputed: bool, most: float
) -> None:
    """Of what forward and backward reach together it is less; norms need little more for backward."""
    train = {"per_device_train_batch_size": 4, "gradient_checkpointing": recomputed}
    tree = changed(trees[name], "train", **train)
    rehearsed = rehearse(planned(tree))

    def use(context: Run, engine: Engine) -> None:
        def stop(*_: Any) -> None:
            raise Reached

        base: Any = engine.module
        base.get_base_model().get_output_embeddings().register_forward_pre_hook(stop)
        training = context.training(engine)
        with allocations(torch.device("cpu")) as found, pytest.raises(Reached):
            passes(training, largest_micro_batch(training))
        assert rehearsed.forward == pytest.approx(found.peak - found.start, rel=0.08)
        assert rehearsed.forward < most * rehearsed.training.parts["activations"]

    made(tree, use)


def passes(training: Training, share: list[int]) -> None:
    training.engine.model.train()
    rows, batching = training.rows, training.batching
    for _ in range(2):
        batch = named_batch(batching, [batching.drawn(rows[i], i, 0) for i in share], [*share])
        training.engine.backward(training_nll_sum(training, batch, row_draws(0, 0, batch)))


def static_bytes(engine: Engine) -> int:
    """Of the model with its buffers and scales, and of the optimizer's state."""
    storages = {}
    module = engine.module
    states = [
        one.weight.quant_state for one in module.modules() if type(one).__name__ == "Linear4bit"
    ]
    scales = [one for s in states for one in (s.absmax, s.code, s.offset, s.state2.absmax)]
    moments = [value for state in engine.optimizer.state.values() for value in state.values()]
    for tensor in (*module.parameters(), *module.buffers(), *scales, *moments):
        storages[tensor.untyped_storage()._cdata] = tensor.untyped_storage().nbytes()
    return sum(storages.values())


def test_a_trace_counts_what_is_alive_and_what_has_gone() -> None:
    with tracing("cpu") as trace:
        kept = torch.zeros(1000)
        with trace.phase("activations") as peak:
            (kept + 1.0).sum()
        assert trace.total == 4000
        assert peak.parts == {"weights": 4000, "activations": 4004}


@pytest.mark.parametrize(
    ("name", "recomputed", "kept"),
    [("decoder", False, True), ("encoder", False, False), ("encoder", True, True)],
)
def test_an_embedding_is_read_again_where_it_scores_words_or_layers_ask_for_gradients(
    trees: dict[str, Tree], name: str, recomputed: bool, kept: bool
) -> None:
    tree = changed(trees[name], "train", gradient_checkpointing=recomputed)
    found = rehearse(planned(tree)).parameters
    table = max((one for one in found if "embed" in one.name), key=lambda one: one.numel)
    assert table.again is kept
    assert all(one.again for one in found if "embed" not in one.name)


def test_functions_that_are_asked_for_are_counted() -> None:
    with Asking() as asking:
        one = torch.zeros(4).view(2, 2)
        assert one.shape == (2, 2) and not one.is_meta
        torch.nn.functional.linear(one, one)
    assert asking.count == 3


def test_called_modules_are_counted() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    with counted_modules() as found:
        model(torch.zeros(1, 2))
    model(torch.zeros(1, 2))
    assert found == {torch.nn.Sequential: 1, torch.nn.Linear: 2}


def test_whole_numbers_keep_their_values() -> None:
    with tracing("cuda"):
        lengths = torch.tensor([3, 1])
        hidden = torch.zeros(5, 8)[torch.tensor([True, False, True, False, False])]
    assert lengths.tolist() == [3, 1]
    assert hidden.shape == (2, 8) and hidden.is_meta


def test_gpus_keep_less_where_their_kernels_do(trees: dict[str, Tree]) -> None:
    """bfloat16 attention of all rows at once, which no CPU of the suite has to have."""
    tree = changed(trees["decoder"], "model", dtype="bfloat16")
    one: Rehearsal = rehearse(planned(tree, kind="cuda"))
    names = {call.function.name() for call in one.calls}
    assert "torch_attn::_varlen_attn" in names


def test_packed_weights_are_made_from_a_plain_one_at_a_time(trees: dict[str, Tree]) -> None:
    """An embedding, which is larger, is loaded as it is."""
    subject = planned(trees["decoder"] | NF4)
    found = rehearse(subject)
    frozen = {one.name: one.bytes for one in found.parameters if not one.trains}
    packed = max(size for name, size in frozen.items() if "_proj" in name and "norm" not in name)
    assert packed < max(frozen.values())
    assert loading_bytes(subject, found) == found.total(False) + found.buffers + 4 * packed


@pytest.mark.parametrize("method", ["bnb-nf4", "bnb-int8"])
@pytest.mark.parametrize(("kind", "adapter"), [("cuda", "lora"), ("cuda", "dora"), ("cpu", "dora")])
def test_products_with_packed_weights_are_products(
    trees: dict[str, Tree], method: str, kind: str, adapter: str
) -> None:
    """On every device, by whichever kernel; an adapter that peft computes goes through bitsandbytes."""
    tree = changed(trees["decoder"], "adapter", method=adapter)
    plain, packed = (
        rehearse(planned(one, kind=kind))
        for one in (tree, {**tree, "quantization": {"method": method}})
    )
    assert operations(packed) == pytest.approx(operations(plain), rel=0.1)


def operations(found: Rehearsal) -> float:
    return sum(call.flops * count for call, count in found.calls.items())
