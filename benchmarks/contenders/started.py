"""What every trainer of transformers is given: its start, and a clock."""

import time
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from transformers import TrainerCallback


class Clock(TrainerCallback):
    """Notes when steps end and what they report."""

    def __init__(self) -> None:
        self.ends: list[float] = []
        self.logs: list[dict[str, float]] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.ends.append(time.time())

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if "loss" in logs:
            self.logs.append(logs)


def start_as(model: Any, file: Path) -> None:
    """Give what learns the values that all contenders start from."""
    start = load_file(file)
    learning = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert learning.keys() == start.keys(), learning.keys() ^ start.keys()
    for name, parameter in learning.items():
        parameter.data.copy_(start[name])
