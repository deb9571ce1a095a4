"""The model card: README.md of an adapter, from the recipe and the results."""

import copy
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData, hf_hub_download

from peftune import __version__
from peftune.embedded import EMBEDDED_PREFIX
from peftune.environment import NOT_INSTALLED, versions
from peftune.export.markdown import fenced, number, table
from peftune.export.serving import usage
from peftune.model.location import model_location
from peftune.model.section import ModelSection
from peftune.objectives import Objective

HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
FILES = ("train", "validation", "test", "chat_template")

LEARNT = {
    "masked": "the hidden tokens, drawn anew in every step",
    "corrupted": "the hidden spans, drawn anew in every step",
    "tags": "the tag of each word, at its first token",
    "span": "the first and the last token of the answer",
}
LEARNT_OF_TASK = {"text": "all tokens", "chat": "every answer and its end of turn"}


@dataclass(frozen=True)
class Told:
    """What a card is made from: the contents of a run's files; what is not known is empty."""

    recipe: Mapping[str, Any]
    objective: Objective
    splits: Mapping[str, Mapping[str, Any]]
    """data_report.json"""
    results: Mapping[str, Any] = field(default_factory=dict)
    """eval_results.json"""
    train_results: Mapping[str, float] = field(default_factory=dict)
    license_fields: Mapping[str, Any] = field(default_factory=dict)
    """See `base_license`."""
    selftest: Mapping[str, Any] = field(default_factory=dict)
    merge_report: Mapping[str, Any] = field(default_factory=dict)
    merged: bool = False
    """Whether the card is the merged model's, and not the adapter's."""


def model_card(told: Told) -> str:
    """The card's text. Local paths are cut to their last part: a card tells no one's folder names."""
    shown, results = without_paths(told.recipe), told.results
    base = hub_id(told.recipe["model"]["model_name_or_path"])
    head = _head(shown, told, base)
    parts = [
        f"---\n{head.to_yaml()}\n---",
        _opening(shown, base, told.merged),
        usage(shown, told.objective, results.get("labels", []), base, told.merged),
        _data(shown, told.objective, told.splits),
        _training(shown, told.train_results),
        _evaluation(shown, told.objective, results),
        *([_parity(told.merge_report)] if told.merge_report else []),
        _limits(results, told.license_fields, told.selftest),
        _versions(),
    ]
    return "\n\n".join(parts) + "\n"


def base_license(section: ModelSection) -> dict[str, Any]:
    """The licence fields of the base model's own card; empty when it has or states none."""
    location = model_location(section)
    try:
        folder = Path(location)
        local = folder / "README.md" if folder.is_dir() else None
        readme = local or hf_hub_download(location, "README.md", revision=section.revision)
        data = ModelCard.load(readme, ignore_metadata_errors=True).data
    except (OSError, ValueError, yaml.YAMLError):
        # No card, no network, or a head that is no YAML: nothing is known, and nothing is made up.
        return {}
    fields = {name: data.get(name) for name in ("license", "license_name", "license_link")}
    return {name: value for name, value in fields.items() if value is not None}


def hub_id(name: str | None) -> str | None:
    """`name` if it is looked up on the Hub, None for embedded and local names."""
    if name is None or not HUB_ID.fullmatch(name) or Path(name).exists():
        return None
    return name


def without_paths(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of the recipe in which every local path keeps its last part only."""
    shown = copy.deepcopy(dict(recipe))
    shown["output_dir"] = PurePath(shown["output_dir"]).name
    for section, key in (("model", "model_name_or_path"), ("data", "path")):
        shown[section][key] = without_folders(shown[section][key])
    for key in FILES:
        file = shown["data"][key]
        shown["data"][key] = PurePath(file).name if file else None
    return shown


def without_folders(name: str | None) -> str | None:
    """A place without the folders of this machine; names of the Hub and embedded ones are whole."""
    if name is None or name.startswith(EMBEDDED_PREFIX) or hub_id(name):
        return name
    return PurePath(name).name


def _head(shown: Mapping[str, Any], told: Told, base: str | None) -> ModelCardData:
    method = shown["adapter"]["method"]
    relation = "finetune" if told.merged else "adapter"
    tags = [method, "peftune", "sft", "transformers"]
    dataset = hub_id(told.recipe["data"]["path"])
    return ModelCardData(
        base_model=base,
        base_model_relation=relation if base else None,
        library_name="transformers" if told.merged else "peft",
        pipeline_tag=told.objective.pipeline_tag,
        tags=[f"base_model:{relation}:{base}", *tags] if base else tags,
        datasets=[dataset] if dataset else None,
        model_name=shown["output_dir"],
        eval_results=_eval_results(shown["data"], told.objective, told.results) or None,
        **told.license_fields,
    )


def _eval_results(
    data: Mapping[str, Any], objective: Objective, results: Mapping[str, Any]
) -> list[EvalResult]:
    source = data["path"] or data["test"]
    return [
        EvalResult(
            task_type=objective.pipeline_tag,
            dataset_type=source,
            dataset_name=source,
            dataset_config=data["name"],
            dataset_revision=data["revision"],
            dataset_split="test",
            metric_type=name,
            metric_value=value["value"] if isinstance(value, Mapping) else value,
        )
        for name, value in results.get("adapted", {}).items()
        if not isinstance(value, list)
    ]


def _opening(shown: Mapping[str, Any], base: str | None, merged: bool) -> str:
    name, revision = shown["model"]["model_name_or_path"], shown["model"]["revision"]
    if name.startswith(EMBEDDED_PREFIX):
        place = " (a small model inside the peftune package)"
    elif base is None:
        place = " (a local folder where this adapter was trained)"
    else:
        place = f" at revision `{revision}`" if revision else ""
    method = shown["adapter"]["method"]
    what = (
        f"`{name}`{place} with a {method} adapter merged into it"
        if merged
        else f"A {method} adapter for `{name}`{place}"
    )
    return (
        f"# {shown['output_dir']}\n\n{what}, trained for the task `{shown['task']}` with peftune "
        f"{__version__}."
    )


def _data(
    shown: Mapping[str, Any], objective: Objective, splits: Mapping[str, Mapping[str, Any]]
) -> str:
    data = shown["data"]
    named = [data[key] for key in ("path", "train", "validation", "test") if data[key]]
    sources = ", ".join(f"`{name}`" for name in named)
    learnt = LEARNT.get(objective.name, "the label")
    if objective.name in ("causal", "seq2seq"):
        learnt = LEARNT_OF_TASK.get(shown["task"], "the completion and its end token")
    counts = ("rows", "dropped", "changed", "tokens")
    counted = table(
        ("split", *counts, "digest of the encoded rows"),
        [
            (name, *(f"{split[count]:,}" for count in counts), f"`{split['digest']}`")
            for name, split in splits.items()
        ],
    )
    accepted = [
        f"- {one['rows']:,} of {one['of']:,} {name} rows: {one['gate']}, "
        f"{'left out' if one['left_out'] else 'kept'}"
        for name, split in splits.items()
        for one in split["accepted"]
    ]
    found = (
        "\n\nKnown faults that the recipe accepts:\n\n" + "\n".join(accepted) if accepted else ""
    )
    return (
        f"## Data\n\n{sources}\n\n{counted}\n\nLearnt: {learnt}. Rows over {data['max_length']:,} "
        f"tokens: `{data['overlong']}`.{found}"
    )


def _training(shown: Mapping[str, Any], train_results: Mapping[str, float]) -> str:
    train, quantization = shown["train"], shown["quantization"]
    per_device, accumulated = (
        train["per_device_train_batch_size"],
        train["gradient_accumulation_steps"],
    )
    facts = {
        "adapter": shown["adapter"]["method"],
        "quantization": quantization["method"] if quantization else "none",
        "base weights": shown["model"]["dtype"],
        "mixed precision": train["mixed_precision"],
        "optimizer": train["optim"],
        "learning rate": f"{train['learning_rate']:g}, {train['lr_scheduler_type']}",
        "rows per step": train["global_batch_size"]
        or f"{per_device} × {accumulated} on each device",
        "seed": shown["seed"],
        **{name.replace("_", " "): number(value) for name, value in train_results.items()},
    }
    text = yaml.safe_dump(dict(shown), sort_keys=False, allow_unicode=True)
    return (
        f"## Training\n\n{table(('', ''), list(facts.items()))}\n\n"
        "<details><summary>The resolved recipe; local paths are cut to their last part"
        f"</summary>\n\n{fenced(text, 'yaml')}\n\n</details>"
    )


def _evaluation(shown: Mapping[str, Any], objective: Objective, results: Mapping[str, Any]) -> str:
    if not results:
        return "## Evaluation\n\nThis run had no test split."
    counted = table(
        ("", "base", "adapted"),
        [
            (name, number(results["base"].get(name)), number(value))
            for name, value in results["adapted"].items()
            if not isinstance(value, list)
        ],
    )
    beams, length = shown["evaluation"]["num_beams"], shown["evaluation"]["max_new_tokens"]
    search = "greedily" if beams == 1 else f"with {beams} beams"
    how = f" of generated text ({search}, at most {length} tokens)" if objective.generates else ""
    return (
        f"## Evaluation\n\nTest split, {results['examples']:,} rows with "
        f"{results['target_tokens']:,} target tokens. The loss is in nats per target token. "
        f"Scores{how} have 95 % bootstrap intervals over the rows in brackets.\n\n{counted}"
    )


def _parity(report: Mapping[str, Any]) -> str:
    """How the merged model compares to what was trained."""
    basis = {
        "original": "the base model's own weights",
        "dequantized": "the quantized weights that it was trained on, turned back into plain numbers",
    }[report["merge_base"]]
    opening = (
        f"## Merged model\n\nThe adapter was added in float32 to {basis}, and the sum rounded once to "
        f"{report['dtype']}."
    )
    numbers = report["parity"]
    if numbers is None:
        return f"{opening} It was not compared with the trained model."
    known = {name: value for name, value in numbers.items() if value is not None}
    rows = [(name.replace("_", " "), f"{value:.3g}") for name, value in known.items()]
    return (
        f"{opening} A fresh process without peftune opened it; its scores for rows of the run differ "
        "from those of training by (largest root mean square of a row, as a share of the spread of all "
        f"scores):\n\n{table(('', ''), rows)}"
    )


def _limits(
    results: Mapping[str, Any], license_fields: Mapping[str, Any], selftest: Mapping[str, Any]
) -> str:
    lines = ["It has the limits of its base model; other text, safety and bias were not measured."]
    if results:
        lines.append("The intervals cover the choice of test rows, not that of the training seed.")
    if not license_fields:
        lines.append("The licence of the base model is not known to this card; it applies.")
    lines += [
        f"The self-test's `{check['name']}` failed, and the recipe accepts it: {check['failure']}"
        for check in selftest.get("checks", [])
        if check["accepted"]
    ]
    return "## Limits\n\n" + "\n".join(f"- {line}" for line in lines)


def _versions() -> str:
    installed = {name: found for name, found in versions().items() if found != NOT_INSTALLED}
    listed = ", ".join(f"{name} {found}" for name, found in installed.items())
    return f"## Versions\n\npeftune {__version__}, {listed}."
