"""Experiment trackers: a run that goes on does so under its old id."""

from collections.abc import Mapping
from typing import Any

from accelerate import Accelerator


def resumed_arguments(ids: Mapping[str, str], step: int) -> dict[str, dict[str, Any]]:
    """What each tracker must be told to go on after `step`; nothing for a run without ids."""
    arguments: dict[str, dict[str, Any]] = {}
    if "wandb" in ids:
        arguments["wandb"] = {"id": ids["wandb"], "resume": "allow"}
    if "mlflow" in ids:
        arguments["mlflow"] = {"run_id": ids["mlflow"]}
    if "tensorboard" in ids:
        # Its files are logs: what a killed run wrote after the checkpoint is hidden.
        arguments["tensorboard"] = {"purge_step": step + 1}
    return arguments


def tracker_ids(accelerator: Accelerator) -> dict[str, str]:
    """By name of a tracker, under which id it knows this run."""
    found = {}
    for tracker in accelerator.trackers:
        match tracker.name:
            case "wandb":
                found["wandb"] = str(tracker.run.id)
            case "mlflow":
                found["mlflow"] = str(tracker.active_run.info.run_id)
            case "tensorboard":
                found["tensorboard"] = str(tracker.logging_dir)
    return found
