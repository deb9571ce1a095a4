"""Engines against arithmetic by hand, and the layout that is chosen."""

from collections import Counter
from dataclasses import replace

import pytest
import torch

from peftune.errors import LaunchError
from peftune.forecast.calls import Call
from peftune.forecast.devices import GIB, device_named
from peftune.forecast.exchange import exchange_of
from peftune.forecast.forecast import shared_out
from peftune.forecast.launcher_file import planned_launch
from peftune.forecast.layouts import Choice, allowed, choices, fastest, recomputations
from peftune.forecast.rehearsal import Rehearsal, Tensor
from peftune.forecast.sharing import layers_of, rank_parts
from peftune.forecast.tracing import Peak
from tests.forecast.conftest import Tree, planned

WEIGHTS = (
    Tensor("model.embed.weight", 4000, 8000, False, 40),
    Tensor("model.layers.0.up.weight", 2000, 4000, False, 20),
    Tensor("model.layers.0.up.lora_A.weight", 100, 400, True, 4),
    Tensor("model.layers.1.up.weight", 3000, 6000, False, 30),
    Tensor("model.layers.1.up.lora_A.weight", 150, 600, True, 4),
)
PARTS = {"weights": 18_500, "adapter": 1000, "optimizer": 2000, "gradients": 0, "activations": 7000}


@pytest.fixture
def found() -> Rehearsal:
    """Two layers and an embedding, 500 bytes of scales beside them."""
    peak = Peak(sum(PARTS.values()), dict(PARTS))
    return Rehearsal(
        WEIGHTS, 500, peak, 40, peak, peak, 900, Counter(), 10.0, Counter(), 0, 0, 2, 5
    )


def parts(found: Rehearsal, engine: str, ranks: int = 2, offload: bool = False) -> dict[str, int]:
    return rank_parts(found, planned_launch(engine, ranks, offload), "adamw_torch")


def test_one_process_holds_what_was_traced(found: Rehearsal) -> None:
    assert parts(found, "ddp", ranks=1) == PARTS


def test_ddp_adds_buckets_of_all_gradients(found: Rehearsal) -> None:
    assert parts(found, "ddp") == {**PARTS, "exchange": 1000}


def test_zero2_shares_the_optimizer_keeps_a_copy_of_its_part_and_a_bucket_for_the_gradients(
    found: Rehearsal,
) -> None:
    assert parts(found, "zero2") == {
        **PARTS,
        "adapter": 1000 + 500,
        "optimizer": 1000,
        "exchange": 1000,
    }


def test_zero3_shares_everything_but_what_is_small_or_needed_soon(found: Rehearsal) -> None:
    """All tensors are small here, so they are whole beside their shards."""
    made = parts(found, "zero3")
    assert made["weights"] == 500 + 9000 and made["gathered"] == 18_000
    assert made["adapter"] == 1000 + 500 and made["optimizer"] == 1000


def test_zero3_gives_back_at_once_what_the_backward_pass_does_not_read(found: Rehearsal) -> None:
    """An embedding of 2,000 bytes; the buffer that it arrived in is there for others' sake."""
    table = Tensor("embed.weight", 10**6, 2000, False, 10)
    tied, alone = (
        parts(replace(found, parameters=(replace(table, again=again),), forward=7000), "zero3")
        for again in (True, False)
    )
    assert (tied["gathered"], alone["gathered"]) == (4000, 2000)


@pytest.mark.parametrize(
    ("forward", "numel", "gathered"),
    [(7000, 10**6, 4000), (6000, 10**6, 3000), (1000, 10**6, 2000), (1000, 2 * 10**9, 1050)],
)
def test_zero3_keeps_the_buffer_that_parameters_arrive_in_through_the_forward_pass(
    found: Rehearsal, forward: int, numel: int, gathered: int
) -> None:
    """2,000 bytes of parameters count twice as far as the 7,000 of activations come later; of more
    than a billion parameters a billion are whole, and fifty million on their way."""
    large = Tensor("head.weight", numel, 2000, False, 10)
    one = replace(found, parameters=(large,), forward=forward)
    assert parts(one, "zero3")["gathered"] == gathered


def test_fsdp2_gathers_two_layers_and_what_is_outside_of_them(found: Rehearsal) -> None:
    layers = layers_of(found)
    assert (layers.largest, layers.outside) == (6600, 8000)
    made = parts(found, "fsdp2")
    assert made["weights"] == 500 + 9000 and made["gathered"] == 8000 + 2 * 6600
    assert made["adapter"] == 500


def test_offload_moves_shards_to_the_host(found: Rehearsal) -> None:
    made = parts(found, "fsdp2", offload=True)
    assert (made["weights"], made["optimizer"], made["host"]) == (0, 0, 9500 + 1000)


def test_optimizers_of_eight_bits_keep_a_quarter(found: Rehearsal) -> None:
    made = rank_parts(found, planned_launch("ddp", 1), "adamw_bnb_8bit")
    assert 500 <= made["optimizer"] <= 520


def test_what_ranks_send(found: Rehearsal) -> None:
    """By hand, with 1,000 bytes trained and 18,000 frozen on four ranks."""
    sent = {
        engine: exchange_of(found, planned_launch(engine, 4), passes=2).bytes
        for engine in ("ddp", "zero1", "zero2", "fsdp2")
    }
    assert sent == {"ddp": 1500, "zero1": 1500, "zero2": 2250, "fsdp2": 0.75 * (4 * 19_000 + 1000)}
    assert exchange_of(found, planned_launch("ddp", 1), passes=2).bytes == 0


def on(found: list[Choice], gib: float) -> list[Choice]:
    """The same choices on devices of so much memory."""
    sized = replace(device_named("h100"), memory=int(gib * GIB))
    return [replace(one, forecast=replace(one.forecast, device=sized)) for one in found]


def test_the_fastest_that_fits(trees: dict[str, Tree]) -> None:
    train = {**trees["decoder"]["train"], "gradient_checkpointing": True}
    tree = {**trees["decoder"], "train": train}
    subject = planned(tree, planned_launch("ddp", 2), "cuda")
    found = choices(subject, device_named("h100"), 1, 2)
    assert {one.name for one in found} >= {"ddp", "zero2", "fsdp2", "zero3", "zero3 with offload"}
    assert fastest(found).forecast.fits
    peaks = [one.forecast.phases[one.forecast.deciding] / GIB for one in found]
    tight = fastest(on(found, 1.00001 * min(peaks)))
    assert tight.forecast.phases[tight.forecast.deciding] / GIB == pytest.approx(min(peaks))
    with pytest.raises(LaunchError, match=r"^--fit: nothing fits: .* takes the least, "):
        fastest(on(found, 0.99 * min(peaks)))


def test_many_small_tensors_make_no_step_of_a_gpu_longer(
    trees: dict[str, Tree], found: Rehearsal
) -> None:
    """Its optimizer takes the tensors of a whole list at once, so the host's calls are not counted."""
    subject, device = planned(trees["decoder"], kind="cuda"), device_named("h100")

    def seconds(tensors: int, numbers: int) -> float:
        call = Call(None, "", 0.0, numbers / tensors, torch.float32)
        one = replace(found, step_calls=Counter({call: tensors}))
        return shared_out(subject, one, device).step_seconds

    assert seconds(1000, 10**6) == pytest.approx(seconds(1, 10**6))
    assert seconds(1, 10**9) == pytest.approx(10**9 / device.bandwidth / device.reached, rel=0.01)


def test_what_the_matrix_refuses_is_no_choice(trees: dict[str, Tree]) -> None:
    subject = planned(trees["decoder"], planned_launch("ddp", 2), "cuda")
    int8 = subject.recipe.model_validate(
        {**trees["decoder"], "quantization": {"method": "bnb-int8"}}
    )
    engines = {launch.engine for launch in allowed(replace(subject, recipe=int8), 2)}
    assert "ddp" in engines and "fsdp2" not in engines


def test_recomputation_is_only_added(trees: dict[str, Tree]) -> None:
    train = {**trees["decoder"]["train"], "gradient_checkpointing": "selective"}
    assert recomputations(planned({**trees["decoder"], "train": train})) == ["selective", True]
