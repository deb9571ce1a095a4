"""Extension point: one file for each way to adapt a frozen model."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from peftune.adapters import dora, ia3, lora
from peftune.adapters.dora import DoraSection
from peftune.adapters.ia3 import Ia3Section
from peftune.adapters.lora import LoraSection, LowRankSection

if TYPE_CHECKING:
    from peft import IA3Config, LoraConfig, PeftModel
    from torch import Tensor
    from torch.nn import Parameter
    from transformers import PreTrainedModel

AdapterSection = Annotated[LoraSection | DoraSection | Ia3Section, Field(discriminator="method")]
ADAPTERS = {"lora": lora, "dora": dora, "ia3": ia3}


def changes_base_weights(section: AdapterSection) -> bool:
    """Whether attaching takes something out of the base weights (PiSSA, OLoRA)."""
    return section.method == "lora" and section.init_lora_weights is not True


def attach(
    section: AdapterSection,
    model: "PreTrainedModel",
    task_type: str | None = "CAUSAL_LM",
    new_modules: Sequence[str] = (),
) -> "PeftModel":
    """Put the adapter on `model`, in place: trained parameters float32, all others frozen.

    `new_modules` start from random numbers: they get no adapter and are trained in full. The
    adapter's own come from torch's global generator. `model` holds whole weights on one device.
    Raises ModelError when a module name, pattern or rank does not fit the model.
    """
    from peftune.adapters.attachment import attach_config, with_new_modules

    if task_type == "QUESTION_ANS":
        # peft's class for it drops token_type_ids: adapter and merged model, which gets them, would give
        # other answers. Its plain class hands everything on.
        task_type = None
    config = ADAPTERS[section.method].peft_config(section, model.config.model_type, task_type)
    if task_type is None:
        # Tells peft which class of transformers the adapter belongs to.
        mapping = {
            "base_model_class": type(model).__name__,
            "parent_library": type(model).__module__,
        }
        config = replace(config, auto_mapping=mapping)
    if new_modules:
        config = with_new_modules(config, model, new_modules)
    adapted = attach_config(config, model)
    if isinstance(section, DoraSection):
        dora.reset_magnitudes(adapted)
    return adapted


def saved_form(
    section: AdapterSection,
    initial: "dict[str, Tensor]",
    trained: "dict[str, Tensor]",
    config: "LoraConfig | IA3Config",
) -> "tuple[dict[str, Tensor], LoraConfig | IA3Config]":
    """Tensors and configuration that plain peft loads onto the original base.

    `initial` and `trained` are the trainable tensors by parameter name, whole, on the CPU, right
    after `attach` and now; `initial` is read only where `changes_base_weights`.
    """
    from peft import LoraConfig

    from peftune.adapters.saving import difference_config, difference_tensors, with_tied_heads

    if not isinstance(config, LoraConfig):
        return trained, config
    if changes_base_weights(section):
        trained = difference_tensors(initial, trained, config.use_rslora)
        config = difference_config(config)
    return with_tied_heads(trained, config), config


def parameter_groups(
    section: AdapterSection,
    named_parameters: "Iterable[tuple[str, Parameter]]",
    learning_rate: float,
    weight_decay: float,
) -> list[dict[str, Any]]:
    """Optimizer groups of the trainable parameters; the first one has the plain learning rate.

    With `loraplus_lr_ratio` the B matrices get that multiple of it (LoRA+, arXiv:2402.12354).
    Biases, norms, magnitudes and (IA)³ factors are vectors and have no weight decay.
    """
    ratio = section.loraplus_lr_ratio if isinstance(section, LowRankSection) else None
    groups: dict[tuple[bool, bool], list[Parameter]] = {}
    for name, parameter in named_parameters:
        if parameter.requires_grad:
            faster = ratio is not None and ".lora_B." in name
            vector = parameter.ndim < 2 or ".ia3_l." in name
            groups.setdefault((faster, vector), []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": learning_rate * (ratio or 1.0) if faster else learning_rate,
            "weight_decay": 0.0 if vector else weight_decay,
        }
        for (faster, vector), parameters in sorted(groups.items(), key=lambda group: group[0])
    ]
