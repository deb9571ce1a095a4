"""LoRA (Hu et al. 2021, arXiv:2106.09685) and its variants of scale, start and learning rate."""

import re
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from peftune.section import Items, Section

if TYPE_CHECKING:
    from peft import LoraConfig


def _regular_expression(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{pattern!r} is no regular expression: {error}") from None
    return pattern


def _all_linear_or_list(value: Any) -> Any:
    if value != "all-linear" and not isinstance(value, (list, tuple)):
        raise ValueError("give all-linear or a list of module names, e.g. [q_proj, v_proj]")
    return value


Pattern = Annotated[str, AfterValidator(_regular_expression)]
Rank = Annotated[int, Field(ge=1)]


class LowRankSection(Section):
    """The keys that every method with a pair of low-rank matrices shares."""

    r: int = Field(16, ge=1)
    """Rank of the update; trainable parameters grow linearly with it."""

    lora_alpha: int = Field(32, ge=1)
    """The update is scaled by `lora_alpha / r`."""

    lora_dropout: float = Field(0.0, ge=0, lt=1)
    """Share of the update's inputs set to zero while training."""

    target_modules: Annotated[
        Literal["all-linear"] | Annotated[Items[str], Field(min_length=1)],
        BeforeValidator(_all_linear_or_list),
    ] = "all-linear"
    """Linear layers that get an adapter: `all-linear` (all but the output head) or a list of
    names, e.g. `[q_proj, v_proj]`."""

    modules_to_save: Items[str] = ()
    """Modules trained in full and saved with the adapter, e.g. `[lm_head]`."""

    rank_pattern: dict[Pattern, Rank] = Field(default_factory=dict)
    """Other ranks for some layers: name or regular expression to rank, e.g. `{down_proj: 32}`."""

    alpha_pattern: dict[Pattern, Rank] = Field(default_factory=dict)
    """Other alphas for some layers: name or regular expression to alpha."""

    use_rslora: bool = False
    """Scale by `lora_alpha / sqrt(r)` instead, which keeps high ranks learning (rsLoRA)."""

    loraplus_lr_ratio: float | None = Field(None, ge=1)
    """The B matrices learn so many times faster than the A matrices (LoRA+)."""


class LoraSection(LowRankSection):
    """A trainable low-rank update beside frozen weights."""

    method: Literal["lora"]
    """LoRA."""

    init_lora_weights: Literal[True, "pissa", "olora"] = True
    """Start: `true` leaves the model unchanged (random A, zero B), `pissa` trains the principal
    singular directions, `olora` an orthonormal basis of each weight."""

    target_parameters: Items[str] = ()
    """Fused weights of a mixture of experts; each expert gets an adapter of its own, e.g.
    `[mlp.experts.gate_up_proj, mlp.experts.down_proj]`. Beside `target_modules`."""

    @model_validator(mode="after")
    def parameters_get_plain_lora(self) -> Self:
        if self.target_parameters and self.lora_dropout:
            raise ValueError("target_parameters: experts cannot have lora_dropout; set it to 0.0")
        if self.target_parameters and self.init_lora_weights is not True:
            raise ValueError("target_parameters: experts need init_lora_weights: true")
        return self


def peft_config(section: LoraSection, model_type: str, task_type: str | None) -> "LoraConfig":
    """peft's configuration of LoRA. Formulas: rsLoRA arXiv:2312.03732, PiSSA arXiv:2404.02948,
    OLoRA arXiv:2406.01775.
    """
    return low_rank_config(
        section,
        task_type,
        init_lora_weights=section.init_lora_weights,
        target_parameters=list(section.target_parameters) or None,
    )


def low_rank_config(section: LowRankSection, task_type: str | None, **variant: Any) -> "LoraConfig":
    """peft's LoraConfig from the shared keys; `variant` holds what the method adds."""
    from peft import LoraConfig

    targets = section.target_modules
    return LoraConfig(
        task_type=task_type,
        r=section.r,
        lora_alpha=section.lora_alpha,
        lora_dropout=section.lora_dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
        modules_to_save=list(section.modules_to_save) or None,
        rank_pattern=dict(section.rank_pattern),
        alpha_pattern=dict(section.alpha_pattern),
        use_rslora=section.use_rslora,
        **variant,
    )
