"""The recipe's `train:` section: everything that changes the numbers of the training itself."""

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from peftune.section import Items, Section

# YAML 1.1 reads a bare `no` as false; Accelerate spells the same choice "no".
Precision = Annotated[
    Literal["no", "bf16", "fp16"], BeforeValidator(lambda value: "no" if value is False else value)
]

Recomputation = bool | Literal["selective"]


class TrainSection(Section):
    """Batches, optimizer, schedule, precision, and when to validate and save."""

    per_device_train_batch_size: int = Field(8, ge=1)
    """Rows in one forward pass on one device."""

    max_tokens_per_pass: int | None = Field(None, ge=1)
    """Tokens in one forward pass on one device, padding among them where it is computed. Rows of a
    step that have more take more passes; a row that alone has more gets one of its own. Changes no
    number."""

    global_batch_size: int | None = Field(None, ge=1)
    """Rows in one optimizer step over all devices. Exactly one of this and
    `gradient_accumulation_steps`."""

    gradient_accumulation_steps: int | None = Field(None, ge=1)
    """Forward passes per optimizer step on each device."""

    per_device_eval_batch_size: int = Field(16, ge=1)
    """Rows in one validation pass or one generation call on one device. Changes no number."""

    num_train_epochs: int | None = Field(None, ge=1)
    """Passes over the training rows. Exactly one of this and `max_steps`."""

    max_steps: int | None = Field(None, ge=1)
    """Optimizer steps."""

    learning_rate: float = Field(gt=0)
    """Peak learning rate."""

    lr_scheduler_type: Literal["linear", "cosine", "constant"] = "cosine"
    """Shape after the warmup: to zero on a line, to zero on half a cosine, or flat."""

    warmup_steps: int | None = Field(None, ge=0)
    """Steps of linear warmup. At most one of this and `warmup_ratio`."""

    warmup_ratio: float | None = Field(None, ge=0, lt=1)
    """Share of all steps spent in warmup."""

    optim: Literal[
        "adamw_torch",
        "adamw_torch_fused",
        "adamw_bnb_8bit",
        "paged_adamw_32bit",
        "paged_adamw_8bit",
    ] = "adamw_torch_fused"
    """Optimizer. The paged and 8-bit ones come from bitsandbytes and need a GPU."""

    weight_decay: float = Field(0.0, ge=0)
    """Decoupled weight decay on matrices; biases and vectors have none."""

    adam_beta1: float = Field(0.9, ge=0, lt=1)
    """Decay of the first moment."""

    adam_beta2: float = Field(0.999, ge=0, lt=1)
    """Decay of the second moment."""

    adam_epsilon: float = Field(1.0e-8, gt=0)
    """Added to the denominator of the update."""

    max_grad_norm: float = Field(1.0, gt=0, allow_inf_nan=True)
    """Gradients are scaled down to this Euclidean norm; `.inf` leaves them as they are."""

    label_smoothing_factor: float = Field(0.0, ge=0, lt=1)
    """Share of the target probability spread over the vocabulary. Training loss only."""

    neftune_noise_alpha: float | None = Field(None, gt=0)
    """Scale of the uniform noise on input embeddings while training (NEFTune)."""

    mixed_precision: Precision = "no"
    """Autocast of the forward pass: `no`, `bf16` or `fp16`."""

    gradient_checkpointing: Recomputation = False
    """Recompute in the backward pass to save memory: whole layers (`true`), or all but the products of
    LoRA layers (`selective`), which costs little time. Changes no number."""

    padding_free: bool = True
    """Leave out padding: a model's layers compute the rows of a forward pass one after another, where
    its code allows it, which the run says. Changes no number."""

    logging_steps: int = Field(1, ge=1)
    """Write a line to metrics.jsonl every so many steps."""

    eval_steps: int | None = Field(None, ge=1)
    """Compute the validation loss every so many steps, and at the end."""

    save_steps: int | None = Field(None, ge=1)
    """Save a checkpoint every so many steps."""

    save_every_minutes: float | None = Field(None, gt=0)
    """Save a checkpoint after the step in which so many minutes have passed since the last one."""

    max_hours: float | None = Field(None, gt=0)
    """Save a checkpoint and stop, to go on later, when so many hours have passed since the start."""

    save_total_limit: int = Field(2, ge=1)
    """Checkpoints to keep, the best one always among them. Needs `save_steps` or
    `save_every_minutes`."""

    load_best_model_at_end: bool = False
    """Finish with the adapter of the lowest validation loss. Needs `eval_steps`."""

    early_stopping_patience: int | None = Field(None, ge=1)
    """Stop after so many validations without a new lowest loss. Needs `eval_steps`."""

    report_to: Items[Literal["tensorboard", "wandb", "mlflow"]] = ()
    """Experiment trackers."""

    run_name: str | None = None
    """Name of the run in the trackers of `report_to`."""

    @model_validator(mode="after")
    def exclusive_keys(self) -> Self:
        if (self.global_batch_size is None) == (self.gradient_accumulation_steps is None):
            raise ValueError(
                "give exactly one of global_batch_size and gradient_accumulation_steps"
            )
        if (self.num_train_epochs is None) == (self.max_steps is None):
            raise ValueError("give exactly one of num_train_epochs and max_steps")
        if self.warmup_steps is not None and self.warmup_ratio is not None:
            raise ValueError("give at most one of warmup_steps and warmup_ratio")
        return self
