"""What an adapter belongs to: the base, head and bits that it was trained on, by its run or by itself."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open
from transformers import AutoTokenizer

from peftune.artefacts import DTYPES, LABELS
from peftune.compatibility import RUN_MARK
from peftune.errors import ModelError, RecipeError
from peftune.export.adapter import CONFIG_FILE, WEIGHTS_FILE
from peftune.export.parity import BOUNDS
from peftune.model.base import load_config
from peftune.model.head import Head, head_modules, model_class
from peftune.model.section import ModelSection
from peftune.objectives import OBJECTIVES, ObjectiveName
from peftune.quantization import BACKENDS
from peftune.recipe import Recipe, load_recipe
from peftune.records import read_json
from peftune.tasks import TASKS
from peftune.untrusted.adapter import check_run, read_labels

EIGHT_BITS = 5e-2
"""A bound for products of numbers of 8 bits, as for bfloat16, which has as many."""
FORMATS = {"no": "float32", "bf16": "bfloat16", "fp16": "float16"}
BY_TASK_TYPE: dict[str, ObjectiveName] = {
    "CAUSAL_LM": "causal",
    "SEQ_2_SEQ_LM": "seq2seq",
    "SEQ_CLS": "label",
    "TOKEN_CLS": "tags",
    "QUESTION_ANS": "span",
}
BY_CLASS: dict[str, ObjectiveName] = {
    "decoder": "causal",
    "encoder": "masked",
    "encoder-decoder": "seq2seq",
}
HEAD_WEIGHT = re.compile(r".*\.(classifier|score)(\.out_proj)?\.weight")
"""Where the heads of transformers' classifiers have a row for each label."""


@dataclass(frozen=True)
class Source:
    """What an adapter was trained on, and how its merge is to be measured."""

    model: ModelSection
    head: Head
    bound: float
    """How far scores may differ by rounding, see `peftune.export.parity.BOUNDS`."""
    quantization: Any = None
    """The section of a base whose weights were quantized."""
    dequantized: bool = False
    """Whether it is merged into what those bits stand for, or into the checkpoint's own weights."""

    @property
    def adapter_bound(self) -> float:
        """The same for the adapter on its base as plain libraries load it: bitsandbytes' own product
        with 8-bit weights rounds the inputs to 8 bits too, training on a CPU does not."""
        rounds = self.quantization is not None and self.quantization.method == "bnb-int8"
        return max(self.bound, EIGHT_BITS) if rounds else self.bound

    @property
    def chooses(self) -> bool:
        """Whether the scores of one place are logits of alternatives."""
        return self.head.objective.name not in ("labels", "value", "span")


def quantizer(source: Source) -> dict[str, Any]:
    """What transformers is told about the bits of a source's base; empty for a plain base."""
    section = source.quantization
    if section is None:
        return {}
    whole = head_modules(load_config(source.model), source.head)
    return BACKENDS[section.method].load_kwargs(section, source.model.dtype, False, whole)


def rounding_bound(recipe: Recipe) -> float:
    """The bound of the least exact number format that a forward pass of this run uses."""
    formats = [recipe.model.dtype, FORMATS[recipe.train.mixed_precision]]
    section = recipe.quantization
    if section is not None and section.method != "bnb-int8":
        formats.append(section.compute_dtype or recipe.model.dtype)
    return max(BOUNDS[name] for name in formats)


def source_of(recipe: Recipe, head: Head) -> Source:
    """What a run's adapter belongs to. Raises ModelError for a merge into bits that are not there."""
    quantization, basis = recipe.quantization, recipe.export.merge_base
    if basis == "dequantized" and quantization is None:
        raise ModelError("export.merge_base: dequantized needs a quantized base; use original.")
    dequantized = quantization is not None and basis != "original"
    return Source(recipe.model, head, rounding_bound(recipe), quantization, dequantized)


def source_at(folder: Path, overrides: list[str], base: str | None, dtype: str | None) -> Source:
    """What the adapter in a folder belongs to, whether a run or something else put it there.

    `overrides` are for a run's recipe, `base` and `dtype` for an adapter without one. Raises
    RecipeError for a folder that is neither, and ModelError.
    """
    if (folder / RUN_MARK).is_file():
        if base or dtype:
            raise RecipeError(
                f"{folder} has the recipe of its run, which decides --base and --dtype; to change it, "
                "give model.model_name_or_path=… and model.dtype=…."
            )
        return source_of_run(load_recipe(folder / RUN_MARK, overrides), folder)
    if not (folder / CONFIG_FILE).is_file():
        raise RecipeError(f"{folder}: neither a run ({RUN_MARK}) nor an adapter ({CONFIG_FILE}).")
    if overrides:
        raise RecipeError(f"{folder} has no recipe that {overrides[0]} could change.")
    return source_of_adapter(folder, base, dtype)


def source_of_run(recipe: Recipe, run: Path) -> Source:
    """The same for a finished run, whose data need not be there any more."""
    trusts_code = recipe.model.trust_remote_code
    check_run(run, trusts_code)
    default = TASKS[recipe.task].objectives[model_class(load_config(recipe.model))]
    saved = {"objective": default, "labels": []} | read_labels(run / LABELS, OBJECTIVES)
    pad_token_id = AutoTokenizer.from_pretrained(run, trust_remote_code=trusts_code).pad_token_id
    head = Head(OBJECTIVES[saved["objective"]], tuple(saved["labels"]), pad_token_id)
    return source_of(recipe, head)


def source_of_adapter(folder: Path, base: str | None, dtype: str | None) -> Source:
    """What an adapter without a recipe belongs to, by its own configuration and its base's.

    `base` and `dtype` go before what these say. Raises ModelError.
    """
    check_run(folder, trusts_code=False)
    told = read_json(folder / CONFIG_FILE)
    name = base or told.get("base_model_name_or_path")
    if not name:
        raise ModelError(f"{folder / CONFIG_FILE} names no base model; give --base.")
    revision = None if base else told.get("revision")
    section = ModelSection(model_name_or_path=name, revision=revision)
    config = load_config(section)
    stored = str(config.dtype or "float32").removeprefix("torch.")
    chosen = dtype or stored
    if chosen not in DTYPES:
        raise ModelError(f"--dtype: {chosen} is none of {', '.join(DTYPES)}.")
    section = section.model_copy(update={"dtype": chosen})
    objective = OBJECTIVES[
        BY_TASK_TYPE.get(str(told.get("task_type"))) or BY_CLASS[model_class(config)]
    ]
    labels = () if objective.generates or objective.name == "span" else labels_of(folder, config)
    pad = config.get_text_config().pad_token_id or 0
    return Source(section, Head(objective, labels, pad), BOUNDS[chosen])


def labels_of(folder: Path, config: Any) -> tuple[str, ...]:
    """Names of an adapter's labels: its own, the base's if there are as many, or numbers."""
    own = read_labels(folder / LABELS, OBJECTIVES).get("labels")
    if own:
        return tuple(own)
    with safe_open(folder / WEIGHTS_FILE, framework="pt") as file:
        heads = [key for key in [*file.keys()] if HEAD_WEIGHT.fullmatch(key)]
        sizes = [file.get_slice(key).get_shape()[0] for key in heads]
    if len(sizes) != 1:
        raise ModelError(
            f"{folder}: how many labels the adapter's head has is not to be seen; write them into "
            f'{LABELS}: {{"labels": ["…"]}}.'
        )
    named = {int(index): name for index, name in (config.id2label or {}).items()}
    if len(named) == sizes[0]:
        return tuple(named[index] for index in range(sizes[0]))
    return tuple(f"LABEL_{index}" for index in range(sizes[0]))
