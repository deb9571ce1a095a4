"""How optimizer state is named in a checkpoint: by parameter, the same for every engine."""

from collections.abc import Mapping

import torch

Tensors = dict[str, torch.Tensor]
LOSS_SCALE = "loss_scale"
SEPARATOR = ":"


def moment_name(parameter: str, moment: str) -> str:
    """The name of one piece of a parameter's state, such as `…lora_A.default.weight:exp_avg`."""
    return f"{parameter}{SEPARATOR}{moment}"


def by_parameter(state: Mapping[str, torch.Tensor]) -> dict[str, Tensors]:
    """For each parameter its pieces."""
    found: dict[str, Tensors] = {}
    for name, value in state.items():
        parameter, _, moment = name.rpartition(SEPARATOR)
        if parameter != LOSS_SCALE:
            found.setdefault(parameter, {})[moment] = value
    return found


def on_cpu(value: torch.Tensor | int | float) -> torch.Tensor:
    """A copy that no later step changes."""
    return torch.as_tensor(value).detach().to("cpu", copy=True).contiguous()


def scale_state(scaler: torch.amp.GradScaler | None) -> Tensors:
    """The loss scale of fp16 and the steps since it last changed; nothing in other precisions."""
    if scaler is None or not scaler.is_enabled():
        return {}
    saved = scaler.state_dict()
    names = ("scale", "_growth_tracker")
    return {moment_name(LOSS_SCALE, name): torch.tensor(saved[name]) for name in names}


def load_scale(scaler: torch.amp.GradScaler | None, state: Mapping[str, torch.Tensor]) -> None:
    """Bring the loss scale back."""
    if scaler is not None and scaler.is_enabled():
        names = ("scale", "_growth_tracker")
        saved = {name: state[moment_name(LOSS_SCALE, name)].item() for name in names}
        scaler.load_state_dict({**scaler.state_dict(), **saved})
