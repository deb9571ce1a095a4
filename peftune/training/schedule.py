"""The learning rate as a pure function of the step: nothing to save, nothing to restore."""

import math
from typing import Literal

Shape = Literal["linear", "cosine", "constant"]


def learning_rate_factor(step: int, *, shape: Shape, warmup_steps: int, total_steps: int) -> float:
    """Share of the peak learning rate used in optimizer step `step` (counted from 0).

    Warmup rises on a line and reaches 1 in its last step; the first step already learns, unlike
    in schedules that start from 0. The decay follows transformers' `get_cosine_schedule_with_warmup`
    and `get_linear_schedule_with_warmup`.
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    match shape:
        case "linear":
            return max(0.0, 1.0 - progress)
        case "cosine":
            return 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))
        case "constant":
            return 1.0
