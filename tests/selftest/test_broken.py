"""Set-ups that are broken on purpose: each is stopped before the first step, for its own reason."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional

from peftune import pipeline
from peftune.adapters import attachment
from peftune.data.encoders import causal
from peftune.errors import DataError, ModelError, PeftuneError
from peftune.model import attention as unpadded
from peftune.selftest import attention
from peftune.training import loop, loss
from tests.conftest import CHAT_TEMPLATE
from tests.contract.breaks import attention_across_rows
from tests.selftest.conftest import Tree, tried

Patch = pytest.MonkeyPatch


def stopped(tree: Tree, check: str, full: bool = False) -> str:
    """The one line that the run ends with, which names the check and how to accept it."""
    with pytest.raises(PeftuneError) as caught:
        tried(tree, full)
    text = str(caught.value)
    assert text.startswith(f"selftest.{check}: ")
    assert text.endswith(f"Or accept it: selftest.accept: [{check}].")
    assert "\n" not in text
    return text


def with_model(patch: Patch, change: Callable[[Any], None]) -> None:
    """Change the adapted model before the engine gets it."""
    made = pipeline.attach

    def attach(*arguments: Any) -> Any:
        model = made(*arguments)
        change(model)
        return model

    patch.setattr(pipeline, "attach", attach)


def test_a_frozen_adapter(recipe_tree: Tree, monkeypatch: Patch) -> None:
    def freeze(model: Any) -> None:
        for name, parameter in model.named_parameters():
            if "layers.0" in name and ".lora_A." in name:
                parameter.requires_grad = False

    with_model(monkeypatch, freeze)
    text = stopped(recipe_tree, "targets")
    assert "7 of 28 adapter tensors are frozen" in text
    assert "layers.0.self_attn.q_proj.lora_A" in text


def test_an_adapter_that_is_frozen_as_a_whole(recipe_tree: Tree, monkeypatch: Patch) -> None:
    """There is no optimizer without parameters, so no engine starts either."""
    with_model(monkeypatch, lambda model: model.requires_grad_(False))
    with pytest.raises(ModelError, match=r"^adapter: nothing to train"):
        tried(recipe_tree)


def test_a_wrong_target_module(recipe_tree: Tree) -> None:
    recipe_tree["adapter"]["target_modules"] = ["q_proj", "v_prj"]
    with pytest.raises(ModelError, match=r"no linear layer named 'v_prj'\. Did you mean v_proj\?"):
        tried(recipe_tree)


def test_a_wrong_target_module_that_nothing_else_stops(
    recipe_tree: Tree, monkeypatch: Patch
) -> None:
    """peft itself takes a list of which one name fits."""
    monkeypatch.setattr(attachment, "check_targets", lambda config, model: None)
    recipe_tree["adapter"]["target_modules"] = ["q_proj", "v_prj"]
    assert "no layer named v_prj has an adapter" in stopped(recipe_tree, "targets")


def test_an_adapter_where_nothing_passes(
    recipe_tree: Tree, models: dict[str, Path], asked_folder: Path
) -> None:
    """A layer that the task's output does not depend on."""
    data = {"path": str(asked_folder), "max_length": 80, "doc_stride": 16}
    recipe_tree |= {"task": "extract", "data": data, "evaluation": {}}
    recipe_tree["model"]["model_name_or_path"] = str(models["bert"])
    with pytest.MonkeyPatch.context() as patch:

        def cut(model: Any) -> None:
            layer = model.get_base_model().bert.encoder.layer[1].output
            layer.dense.register_forward_hook(lambda _module, _given, made: torch.zeros_like(made))

        with_model(patch, cut)
        text = stopped(recipe_tree, "gradients")
    assert "get no gradient" in text
    assert "layer.1" in text


def test_a_chat_template_without_an_end_token(
    recipe_tree: Tree, tmp_path: Path, chat_folder: Path
) -> None:
    """The gate stops it while the rows are made."""
    template_file = str(tmp_path / "chat.jinja")
    recipe_tree["task"] = "chat"
    recipe_tree["data"] = {"path": str(chat_folder), "chat_template": template_file}
    template = CHAT_TEMPLATE.replace("{{ eos_token }}", "")
    (tmp_path / "chat.jinja").write_text(template, encoding="utf-8")
    with pytest.raises(DataError, match="the template writes no token at the end of an answer"):
        tried(recipe_tree)


def test_rows_without_an_end_token(recipe_tree: Tree, tmp_path: Path, monkeypatch: Patch) -> None:
    """The same where the encoder itself forgets it: padding is often the end token, and masked."""
    encoded = causal._encoded

    def forgetful(row: Any, start: int, end: int) -> Any:
        return encoded(row, start, end - 1)

    monkeypatch.setattr(causal, "_encoded", forgetful)
    monkeypatch.setenv("PEFTUNE_CACHE", str(tmp_path / "cache"))
    text = stopped(recipe_tree, "end_token")
    assert "40 of 40 rows do not learn an end token (the first is row 1)" in text


def attending(patch: Patch, mask: Callable[[torch.Tensor], torch.Tensor | None]) -> None:
    """Let every attention kernel see through another mask, (rows, 1, tokens, tokens) or None."""
    plain = functional.scaled_dot_product_attention

    def attention_kernel(query: Any, key: Any, value: Any, **options: Any) -> Any:
        tokens = query.shape[-2]
        causal_mask = torch.ones(tokens, tokens, dtype=torch.bool).tril()[None, None]
        options["attn_mask"] = mask(causal_mask.expand(len(query), -1, -1, -1))
        options["is_causal"] = False
        return plain(query, key, value, **options)

    patch.setattr(functional, "scaled_dot_product_attention", attention_kernel)


def test_attention_that_reaches_padding(
    recipe_tree: Tree, models: dict[str, Path], labelled_folder: Path, monkeypatch: Patch
) -> None:
    data = {"path": str(labelled_folder), "max_length": 64}
    recipe_tree |= {"task": "classify", "data": data, "evaluation": {}}
    recipe_tree["model"]["model_name_or_path"] = str(models["bert"])
    recipe_tree["train"]["padding_free"] = False
    attending(monkeypatch, lambda causal_mask: None)
    assert "attention reaches padding or other rows" in stopped(recipe_tree, "padding")


def test_attention_that_reaches_later_tokens(recipe_tree: Tree, monkeypatch: Patch) -> None:
    """Padded rows alone would show it too; with rows of one length only this check can."""
    own_scores = attention.own_scores
    monkeypatch.setattr(attention, "own_scores", lambda trial, rows, batch, padded=False: [
        own_scores(trial, [row], trial.batch([row]))[0] for row in rows
    ])  # fmt: skip
    attending(monkeypatch, lambda causal_mask: torch.ones_like(causal_mask))
    assert "attention reaches later tokens" in stopped(recipe_tree, "causality")


def test_unpadded_rows_that_see_each_other(recipe_tree: Tree, monkeypatch: Patch) -> None:
    monkeypatch.setattr(unpadded, "row_by_row", attention_across_rows)
    assert "attention reaches padding or other rows" in stopped(recipe_tree, "padding")


def mean_of_micro_batches(training: Any, step: int, batches: Any, targets: int) -> torch.Tensor:
    """What other toolkits did: each micro-batch has the same weight, whatever it holds."""
    objective, engine = training.batching.objective, training.engine
    total = torch.zeros((), dtype=torch.float64)
    for index, batch in enumerate(batches):
        with engine.micro_batch(last=index == len(batches) - 1):
            found = loss.batch_nll_sum(engine.model, batch, objective)
            mean = found / loss.count_targets(batch["labels"], objective) / len(batches)
            engine.backward(mean)
        total += mean.detach().double() * targets
    return total


@pytest.mark.parametrize("task", ["summarize", "classify"])
def test_a_mean_of_means(
    task: str,
    recipe_tree: Tree,
    models: dict[str, Path],
    labelled_folder: Path,
    monkeypatch: Patch,
) -> None:
    """Also where every row has one label, because the last micro-batch has fewer rows."""
    if task == "classify":
        data = {"path": str(labelled_folder), "max_length": 64}
        recipe_tree |= {"task": "classify", "data": data, "evaluation": {}}
        recipe_tree["model"]["model_name_or_path"] = str(models["bert"])
    monkeypatch.setattr(loop, "accumulate", mean_of_micro_batches)
    assert "its rows one at a time give" in stopped(recipe_tree, "loss")


def test_a_loss_that_leaves_out_tokens(recipe_tree: Tree, monkeypatch: Patch) -> None:
    """Not shifting the labels is a loss that still falls."""
    monkeypatch.setattr(loss, "targets", lambda labels, objective: labels[:, :-1])
    assert "its rows one at a time give" in stopped(recipe_tree, "loss")


def test_a_gradient_that_is_not_that_of_the_loss(recipe_tree: Tree, monkeypatch: Patch) -> None:
    """The number on the screen is right and the weights learn something else."""
    right = loop.accumulate

    def wrong_weights(training: Any, step: int, batches: Any, targets: int) -> torch.Tensor:
        with pytest.MonkeyPatch.context() as inner:
            scale = iter((1.0, 3.0))
            backward = training.engine.backward
            inner.setattr(training.engine, "backward", lambda part: backward(part * next(scale)))
            return right(training, step, batches, targets)

    with pytest.MonkeyPatch.context() as outer:
        outer.setattr(loop, "accumulate", wrong_weights)
        text = stopped(recipe_tree, "accumulation", full=True)
    assert "differs by" in text


def refusing(patch: Patch, rows: int, error: Callable[[], Exception]) -> None:
    """A model that runs out of memory from so many rows on."""

    def check(module: Any, arguments: Any, options: Any) -> None:
        if len(options["input_ids"]) >= rows:
            raise error()

    with_model(patch, lambda m: m.register_forward_pre_hook(check, with_kwargs=True) and None)


def failed_allocation() -> Exception:
    """What torch's own allocator says about 2**47 bytes."""
    try:
        torch.empty(2**47, dtype=torch.uint8)
    except RuntimeError as error:
        return error
    raise AssertionError("this machine has too much memory")


@pytest.mark.parametrize(
    "error", [failed_allocation, MemoryError, lambda: torch.OutOfMemoryError("CUDA out of memory")]
)
def test_a_batch_that_does_not_fit(
    error: Callable[[], Exception], recipe_tree: Tree, monkeypatch: Patch
) -> None:
    """The rows of the other checks still fit, so this is found by trying the largest batch."""
    recipe_tree["train"] |= {"per_device_train_batch_size": 4, "per_device_eval_batch_size": 16}
    refusing(monkeypatch, 4, error)
    text = stopped(recipe_tree, "memory")
    assert "does not fit into memory in training" in text
    assert "lower train.per_device_train_batch_size: 4 or data.max_length: 128" in text
    assert "train.gradient_checkpointing: true" in text


def test_an_evaluation_batch_that_does_not_fit(recipe_tree: Tree, monkeypatch: Patch) -> None:
    refusing(monkeypatch, 8, MemoryError)
    text = stopped(recipe_tree, "memory")
    assert "in evaluation (no memory is left); lower train.per_device_eval_batch_size: 16" in text


def test_other_errors_are_no_lack_of_memory(recipe_tree: Tree, monkeypatch: Patch) -> None:
    refusing(monkeypatch, 2, lambda: RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        tried(recipe_tree)


def test_a_tied_head_that_was_resized(recipe_tree: Tree, monkeypatch: Patch) -> None:
    """New rows of embedding and head are trained on, and no file of the adapter holds them."""
    load = pipeline.load_frozen

    def resized(*arguments: Any) -> Any:
        model, new = load(*arguments)
        model.resize_token_embeddings(392, mean_resizing=False)
        return model.requires_grad_(False), new

    monkeypatch.setattr(pipeline, "load_frozen", resized)
    text = stopped(recipe_tree, "reload", full=True)
    assert "392" in text
    assert "384" in text


def test_a_head_that_is_no_longer_tied(recipe_tree: Tree, monkeypatch: Patch) -> None:
    """The same shapes, and other numbers."""

    def untie(model: Any) -> None:
        head = model.get_base_model().lm_head
        head.weight = torch.nn.Parameter(head.weight.detach() * 1.1, requires_grad=False)

    with_model(monkeypatch, untie)
    assert "a head was resized or untied" in stopped(recipe_tree, "reload", full=True)


@pytest.fixture
def poisoned_model(recipe_tree: Tree, tmp_path: Path) -> Iterator[str]:
    """The tiny model with one number of one weight that is none; the weight's name."""
    from shutil import copytree

    name = "model.layers.1.mlp.down_proj.weight"
    folder = Path(copytree(recipe_tree["model"]["model_name_or_path"], tmp_path / "poisoned"))
    weights = load_file(folder / "model.safetensors")
    weights[name][3, 5] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    recipe_tree["model"]["model_name_or_path"] = str(folder)
    yield name


@pytest.mark.parametrize("method", [None, "bnb-nf4", "bnb-int8"])
def test_a_base_weight_that_is_no_number(
    method: str | None, recipe_tree: Tree, poisoned_model: str
) -> None:
    """Also inside quantized weights, whose scales it spoils."""
    if method:
        recipe_tree["quantization"] = {"method": method}
    text = stopped(recipe_tree, "base_finite")
    assert poisoned_model.removesuffix("weight") in text
    assert "model.dtype" in text


def test_a_base_weight_that_a_step_changes(recipe_tree: Tree, monkeypatch: Patch) -> None:
    """One bit of one number."""

    def drift(model: Any) -> None:
        weight = model.get_base_model().model.norm.weight

        def change(module: Any, inputs: Any) -> None:
            if module.training:
                weight.data.view(torch.int32)[7] += 1

        model.register_forward_pre_hook(change)

    with_model(monkeypatch, drift)
    text = stopped(recipe_tree, "base_unchanged")
    assert "changed 1 base weights (base_model.model.model.norm.weight)" in text


def test_steps_that_go_uphill(recipe_tree: Tree, monkeypatch: Patch) -> None:
    build = pipeline.build_optimizer

    def uphill(*arguments: Any) -> torch.optim.Optimizer:
        optimizer = build(*arguments)
        for group in optimizer.param_groups:
            group["maximize"] = True
        return optimizer

    monkeypatch.setattr(pipeline, "build_optimizer", uphill)
    text = stopped(recipe_tree, "learns", full=True)
    assert "lower train.learning_rate: 0.01" in text
