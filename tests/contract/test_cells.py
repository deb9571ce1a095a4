"""Every green cell of the matrix is computed: the names of these tests are made of the cells.

The same rows are trained in each engine, quantization, adapter and class of model, and every number
must be that of one row at a time in float64, on the dequantized weights where they are quantized.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from transformers import OlmoeConfig, OlmoeForCausalLM
from transformers.models.auto import modeling_auto

from peftune.adapters import attach, saved_form
from peftune.artefacts import load_frozen
from peftune.data.rows import IGNORED, EncodedRow
from peftune.export.adapter import save_adapter
from peftune.export.merge import merge
from peftune.matrix import MATRIX, SETTINGS, Cell, Grid
from peftune.merging import dequantizer_of
from peftune.model.base import load_skeleton
from peftune.model.head import Head
from peftune.model.location import weight_files
from peftune.model.section import ModelSection
from peftune.objectives import OBJECTIVES, ObjectiveName
from peftune.quantization import QuantizationSection
from peftune.sources import Source
from peftune.training.loss import learnt, model_logits
from tests.contract import models
from tests.contract.cases import LABELS, PAD, Case, Outcome, Tensors, adapted_model, adapter_of, run
from tests.contract.comparing import TOLERANCE, apart, differences, largest
from tests.contract.groups import Group
from tests.contract.oracle import oracle

Ranks = Callable[[int], Group]
ADAPTERS: dict[str, dict[str, Any]] = {
    "lora": {"method": "lora", "r": 4, "lora_dropout": 0.1, "loraplus_lr_ratio": 2.0},
    "lora-pissa": {"method": "lora", "r": 4, "init_lora_weights": "pissa"},
    "lora-olora": {"method": "lora", "r": 4, "init_lora_weights": "olora"},
    "lora-experts": {
        "method": "lora",
        "r": 2,
        "target_modules": ["q_proj", "v_proj"],
        "target_parameters": ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"],
    },
    "dora": {"method": "dora", "r": 4, "lora_dropout": 0.1},
    "ia3": {"method": "ia3"},
}
MODELS = {"decoder": "llama", "encoder-decoder": "t5", "encoder": "bert"}
LEARNS: dict[str, ObjectiveName] = {
    "decoder": "causal",
    "encoder-decoder": "seq2seq",
    "encoder": "label",
}
# A gradient is a sum of terms that cancel, and each is rounded to float32.
GRADIENT_TOLERANCE = 2e-5
BF16_TOLERANCE = 0.01
CELL = ("engine", "quantization", "adapter", "model_class")
MERGED = CELL[1:]
SETTING = ("engine", "setting")


def green(grid: Grid, axes: tuple[str, ...], **fixed: str) -> list[Any]:
    """A parameter for each combination of `axes` that green cells have, named by its values.

    Without the thorough ones there is each pair of values that goes together, at least once.
    """
    wanted = set(fixed.items())
    cells = [
        cell
        for cell in grid.cells()
        if wanted <= set(cell.items()) and grid.rule(cell).state == "green"
    ]
    named = {"-".join(cell[axis] for axis in axes): cell for cell in cells}
    quick = with_every_pair({name: values(cell, axes) for name, cell in named.items()})
    return [
        pytest.param(cell, id=name, marks=() if name in quick else pytest.mark.thorough)
        for name, cell in named.items()
    ]


def values(cell: Cell, axes: tuple[str, ...]) -> list[tuple[str, str]]:
    return [(axis, cell[axis]) for axis in axes]


def with_every_pair(named: dict[str, list[tuple[str, str]]]) -> set[str]:
    """Few names whose values have every pair that any have: always the one with the most new pairs."""
    pairs = {name: {*combinations(found, 2)} for name, found in named.items()}
    left, chosen = set().union(*pairs.values()), set[str]()
    while left:
        best = max(pairs, key=lambda name: len(pairs[name] & left))
        chosen.add(best)
        left -= pairs[best]
    return chosen


def rows(model_class: str) -> tuple[EncodedRow, ...]:
    """Five rows of unequal length."""
    made = []
    for index, length in enumerate((3, 17, 8, 5, 11)):
        ids = tuple(2 + (7 * index + 5 * place) % 62 for place in range(length))
        labels: tuple[float, ...] = (IGNORED, *ids[1:])
        if model_class == "encoder":
            labels = (index % 3,)
        elif model_class == "encoder-decoder":
            labels = (*ids[: 2 + index], 1)
        made.append(EncodedRow(ids, labels, (), index))
    return tuple(made)


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A model of each class and a mixture of experts, of one layer: there are many cells."""
    folders = {name: tmp_path_factory.mktemp(name) for name in (*MODELS.values(), "olmoe")}
    for name in MODELS.values():
        model, config = models.MODELS[name]
        layers = "num_layers" if name == "t5" else "num_hidden_layers"
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(models.MODELS, name, (model, {**config, layers: 1}))
            models.save_model(name, folders[name])
    torch.manual_seed(0)
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "num_key_value_heads": 2}
    sizes = {**models.WIDTHS, **models.HEADS, "num_hidden_layers": 1}
    mixture = OlmoeForCausalLM(OlmoeConfig(**models.ENDS, **sizes, **experts))
    mixture.save_pretrained(folders["olmoe"])
    (folders["olmoe"] / "tokenizer.json").write_text("{}")
    by_class = {kind: str(folders[name]) for kind, name in MODELS.items()}
    return {**by_class, "lora-experts": str(folders["olmoe"])}


def case_of(cell: Cell, bases: dict[str, str], **train: Any) -> Case:
    engine, _, offload = cell["engine"].partition("-")
    kind, adapter = cell.get("model_class", "decoder"), cell.get("adapter", "lora")
    method = cell.get("quantization", "none")
    return Case(
        folder=bases.get(adapter, bases[kind]),
        objective=LEARNS[kind],
        rows=rows(kind),
        adapter=ADAPTERS[adapter],
        quantization=None if method == "none" else {"method": method},
        engine="ddp" if engine == "single" else engine,
        world_size=1 if engine == "single" else 2,
        offload=bool(offload),
        train={
            "per_device_train_batch_size": 2,
            "global_batch_size": 4,
            "max_steps": 1,
            "learning_rate": 1.0e-3,
            "adam_epsilon": 1.0e-3,
            "max_grad_norm": 0.5,
            **train,
        },
    )


@pytest.fixture(scope="module")
def exact(bases: dict[str, str]) -> Callable[[Cell], Outcome]:
    """What every engine must give for a cell."""

    @cache
    def of(quantization: str, adapter: str, model_class: str) -> Outcome:
        cell = {"quantization": quantization, "adapter": adapter, "model_class": model_class}
        case = case_of({"engine": "single", **cell}, bases)
        if adapter == "lora-experts":
            # torch multiplies the experts' weights in no number format beyond float32.
            one_at_a_time = {**case.train, "per_device_train_batch_size": 1}
            return run(replace(case, train=one_at_a_time))
        return oracle(replace(case, dequantized=case.quantization is not None))

    return lambda cell: of(*(cell[axis] for axis in MERGED))


@pytest.fixture(scope="module")
def begun(bases: dict[str, str]) -> Callable[[Cell], tuple[Outcome, Outcome]]:
    """What one process has reached after the first of two steps, and after both."""

    @cache
    def of(quantization: str, adapter: str, model_class: str) -> tuple[Outcome, Outcome]:
        cell = {"quantization": quantization, "adapter": adapter, "model_class": model_class}
        case = case_of({"engine": "single", **cell}, bases, max_steps=2)
        return run(replace(case, last_step=1)), run(case)

    return lambda cell: of(*(cell[axis] for axis in MERGED))


@pytest.fixture(scope="module")
def computed(bases: Any, begun: Any, group: Ranks) -> Callable[[Cell], list[Outcome]]:
    """What each rank of a cell's engine finds in a step of its own, and in one after the state of one
    process, which it takes over. Both in one start, because that takes longest."""

    @cache
    def of(*values: str) -> list[Outcome]:
        cell = dict(zip(CELL, values, strict=True))
        first = begun(cell)[0]
        case = case_of(cell, bases, max_steps=2)
        case = replace(case, last_step=1, then=(first.adapter, first.moments))
        return [run(case)] if case.world_size == 1 else group(case.world_size).run(case)

    return lambda cell: of(*(cell[axis] for axis in CELL))


@pytest.mark.parametrize("cell", green(MATRIX, CELL, action="train"))
def test_trains(cell: Cell, computed: Any, exact: Any) -> None:
    """Loss, gradient norm and every gradient of a step, and the held-out loss after it."""
    for ours in computed(cell):
        # The step after the state was taken over is the other test's.
        ours = replace(ours, gradients=ours.gradients[:1])
        found = differences(ours, exact(cell))
        assert max(found["loss"], found["held-out loss"]) < TOLERANCE, found
        assert max(found["gradient norm"], found["gradients"]) < GRADIENT_TOLERANCE, found
        assert all(torch.isfinite(tensor).all() for tensor in ours.adapter.values())


@pytest.mark.parametrize("cell", green(MATRIX, CELL, action="resume"))
def test_resumes(cell: Cell, computed: Any, begun: Any) -> None:
    """From the state of one process: it arrives whole, and the next step is the same."""
    first, both = begun(cell)
    outcomes = [outcome.resumed for outcome in computed(cell)]
    assert outcomes[0].taken_over.keys() == first.moments.keys()
    for name, value in outcomes[0].taken_over.items():
        assert torch.equal(value, first.moments[name]), name
    for ours in outcomes:
        assert largest([(ours.losses[0], both.losses[1])]) < TOLERANCE
        assert largest([(ours.norms[0], both.norms[1])]) < GRADIENT_TOLERANCE
        assert apart(ours.adapter, both.adapter) < GRADIENT_TOLERANCE


@pytest.mark.parametrize("cell", green(MATRIX, MERGED, action="merge"))
def test_merges(cell: Cell, bases: Any, tmp_path: Path) -> None:
    """The adapter as it is saved, merged: the model of plain transformers gives equal logits.

    A cell's engine ends with the adapter of one process, as `test_trains` shows.
    """
    case = case_of({"engine": "single", **cell}, bases)
    adapted, (fresh, config) = adapted_model(case), untrained(case)
    tensors, saved_config = saved_form(adapter_of(case), fresh, trained(adapted), config)
    save_adapter(tmp_path, saved_config, tensors, case.folder)
    recipe, head = recipe_of(case), head_of(case)
    source = Source(recipe.model, head, 1e-4, recipe.quantization, case.quantization is not None)
    skeleton, files = load_skeleton(recipe.model, head), weight_files(recipe.model)
    quantized = dequantizer_of(source) if source.dequantized else None
    out = tmp_path / "merged"
    merge(tmp_path, skeleton, files, out, torch.float32, lambda folder: None, quantized)
    auto_class = modeling_auto.__dict__[head_of(case).objective.auto_class]
    merged = auto_class.from_pretrained(tmp_path / "merged")
    torch.testing.assert_close(logits(case, merged), logits(case, adapted), rtol=1e-4, atol=1e-5)


def head_of(case: Case) -> Head:
    return Head(OBJECTIVES[case.objective], LABELS if case.objective == "label" else (), PAD)


def recipe_of(case: Case) -> Any:
    """What a merge reads of a recipe."""
    chosen: Any = QuantizationSection
    section = case.quantization and TypeAdapter(chosen).validate_python(case.quantization)
    model = ModelSection(model_name_or_path=case.folder, dtype="float32")
    return SimpleNamespace(model=model, quantization=section)


def untrained(case: Case) -> tuple[Tensors, Any]:
    """The adapter right after it was attached, and peft's configuration of it."""
    torch.manual_seed(0)
    model, new = load_frozen(recipe_of(case), head_of(case), "cpu", False)
    torch.manual_seed(0)
    adapted = attach(adapter_of(case), model, head_of(case).objective.task_type, new)
    return trained(adapted), adapted.peft_config["default"]


def trained(model: torch.nn.Module) -> Tensors:
    return {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}


@torch.no_grad()
def logits(case: Case, model: torch.nn.Module) -> torch.Tensor:
    """Of all rows, where they are no padding."""
    batch = case.batching.collate(case.rows)
    found = model_logits(model.eval(), batch, case.objective)
    return found if found.ndim < 3 else found[learnt(batch["labels"])]


@pytest.mark.parametrize("cell", green(SETTINGS, SETTING))
def test_setting(cell: Cell, bases: Any, group: Ranks) -> None:
    """Against one process: to rounding, with bf16 to a hundredth."""
    train = {"mixed_precision": "bf16"} if cell["setting"] == "bf16" else {}
    case = case_of(cell, bases, **train)
    alone = run(case_of({**cell, "engine": "single"}, bases, **train))
    outcomes = [run(case)] if case.world_size == 1 else group(case.world_size).run(case)
    tolerance = BF16_TOLERANCE if train else TOLERANCE
    for ours in outcomes:
        assert largest(list(zip(ours.losses, alone.losses, strict=True))) < tolerance
        assert largest(list(zip(ours.norms, alone.norms, strict=True))) < tolerance
