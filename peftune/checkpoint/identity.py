"""What the numbers of a run depend on, and what of it is different from when a checkpoint was saved."""

from collections.abc import Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download

from peftune.data.encoded import tokenizer_identity
from peftune.data.table import digest
from peftune.errors import CheckpointError
from peftune.fingerprints import files_digest
from peftune.model.location import is_local, model_location
from peftune.model.section import ModelSection
from peftune.plan import Plan
from peftune.recipe import Recipe
from peftune.resolved import one_line

# Where things are, what is written and shown, what is checked, and what only splits the work.
NO_NUMBER: Any = {
    "output_dir": True,
    "overwrite_output_dir": True,
    "resume": True,
    "selftest": True,
    "evaluation": True,
    "export": True,
    "ranks": True,
    "model": {"model_name_or_path", "revision", "trust_remote_code"},
    "data": {"path", "name", "revision", "train", "validation", "test", "mixture", "chat_template"},
    "train": {
        # The plan says these in one way, whichever key they were given by.
        "global_batch_size",
        "gradient_accumulation_steps",
        "num_train_epochs",
        "max_steps",
        "warmup_steps",
        "warmup_ratio",
        "per_device_train_batch_size",
        "per_device_eval_batch_size",
        "gradient_checkpointing",
        "padding_free",
        "max_tokens_per_pass",
        "logging_steps",
        "save_steps",
        "save_every_minutes",
        "save_total_limit",
        "max_hours",
        "report_to",
        "run_name",
    },
}
Identity = Mapping[str, Any]
WEIGHTS = "model*.safetensors"


def recipe_identity(recipe: Recipe) -> dict[str, Any]:
    """Every value of the recipe that some number depends on, by dotted key."""
    return dict(_flat(recipe.model_dump(mode="json", exclude=NO_NUMBER), ""))


def _flat(tree: Mapping[str, Any], prefix: str) -> Iterable[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def plan_identity(plan: Plan) -> dict[str, int]:
    """What several keys of the recipe come to."""
    return {
        "train.global_batch_size": plan.global_batch_size,
        "train.max_steps": plan.total_steps,
        "train.warmup_steps": plan.warmup_steps,
        "data.rows": plan.rows,
    }


def run_identity(
    recipe: Recipe,
    plan: Plan,
    stores: Mapping[Any, str],
    tokenizer: Any,
    weights: str,
) -> dict[str, Any]:
    """The recipe's values, the plan's, and digests of what the recipe only names."""
    digests = {f"data.{split}": store for split, store in stores.items()} | {
        "model.tokenizer": digest(tokenizer_identity(tokenizer)),
        "model.weights": weights,
    }
    return recipe_identity(recipe) | plan_identity(plan) | digests


def start_identity(recipe: Recipe, initial: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """Where the adapter started, for methods that change the base weights by it."""
    if recipe.adapter.method != "lora" or recipe.adapter.init_lora_weights is True:
        return {}
    hashed = sha256()
    for name in sorted(initial):
        hashed.update(name.encode())
        hashed.update(initial[name].contiguous().numpy().tobytes())
    return {"adapter.start": hashed.hexdigest()}


def weights_digest(section: ModelSection) -> str:
    """Of the bytes of the base model's weight files, fetched from the Hub if they are not here yet."""
    if is_local(section):
        folder = Path(model_location(section))
    else:
        name, revision = section.model_name_or_path, section.revision
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=[WEIGHTS]))
    return files_digest(sorted(folder.glob(WEIGHTS)))


def differences(saved: Identity, now: Identity) -> dict[str, str]:
    """By key, what it was and what it is, as a person reads it."""
    nothing = "not set"
    return {
        key: f"{_shown(saved.get(key, nothing))} → {_shown(now.get(key, nothing))}"
        for key in sorted(saved.keys() | now.keys())
        if saved.get(key, nothing) != now.get(key, nothing)
    }


def _shown(value: Any) -> str:
    text = one_line(value)
    return f"{text[:12]}…" if len(text) == 64 else text


def require_same(saved: Identity, now: Identity, allowed: Iterable[str], folder: Path) -> list[str]:
    """The differences that `resume.allow` accepts, as lines. Raises CheckpointError for others."""
    found, accepted = differences(saved, now), set(allowed)
    refused = {key: change for key, change in found.items() if key not in accepted}
    if refused:
        listed = "; ".join(f"{key}: {change}" for key, change in refused.items())
        raise CheckpointError(
            f"resume: {folder} is of a run with other values: {listed}. Go back to them, or accept "
            f"them: resume.allow: [{', '.join(sorted(accepted | refused.keys()))}]."
        )
    return [f"{key}: {change}, accepted by resume.allow" for key, change in found.items()]
