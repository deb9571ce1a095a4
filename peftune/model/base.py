"""Loads the tokenizer and the frozen base model."""

from pathlib import Path
from typing import Any

from peftune.errors import ModelError
from peftune.model.head import Head, new_modules
from peftune.model.location import KEY, checked_model, model_location
from peftune.model.section import ModelSection
from peftune.untrusted.model import most_parameters


def load_tokenizer(section: ModelSection) -> Any:
    """The fast tokenizer, with a pad token. Raises ModelError."""
    from transformers import AutoTokenizer

    try:
        checked_model(section, with_weights=False)
        tokenizer = AutoTokenizer.from_pretrained(
            model_location(section),
            revision=section.revision,
            trust_remote_code=section.trust_remote_code,
        )
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(_unreachable(section, "tokenizer", error)) from error
    if not tokenizer.is_fast:
        raise ModelError(
            f"{KEY}: {section.model_name_or_path!r} has no fast tokenizer (tokenizer.json); learnt "
            "characters cannot be traced to tokens without one."
        )
    if tokenizer.pad_token_id is None and tokenizer.eos_token_id is not None:
        # Padding is masked by position, never by its id, so any id serves.
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def require_end_token(section: ModelSection, tokenizer: Any) -> None:
    """Raise ModelError for a model that is to write text and could not be taught to end."""
    if tokenizer.eos_token_id is None:
        raise ModelError(
            f"{KEY}: the tokenizer of {section.model_name_or_path!r} has no end token (eos_token)."
        )


def load_config(section: ModelSection) -> Any:
    """The model's configuration, from which its class is told. Raises ModelError."""
    from transformers import AutoConfig

    try:
        checked_model(section, with_weights=False)
        return AutoConfig.from_pretrained(
            model_location(section),
            revision=section.revision,
            trust_remote_code=section.trust_remote_code,
        )
    except (OSError, ValueError) as error:
        raise ModelError(_unreachable(section, "configuration", error)) from error


def load_base(
    section: ModelSection, head: Head, quantization: dict[str, Any], device: str
) -> tuple[Any, list[str]]:
    """The base model with the output layer of `head`, every parameter frozen.

    Also returns the modules that start from random numbers, see `new_modules`. `quantization` holds
    a backend's arguments, or nothing; quantized weights go to `device` at once, others stay on the
    CPU until an engine places them. Raises ModelError.
    """
    from safetensors import SafetensorError
    from torch import OutOfMemoryError
    from transformers.models.auto import modeling_auto

    load_skeleton(section, head)
    placement = {"device_map": {"": device}} if quantization else {}
    try:
        model, loading = modeling_auto.__dict__[head.objective.auto_class].from_pretrained(
            model_location(section),
            revision=section.revision,
            dtype=section.dtype,
            attn_implementation=section.attn_implementation,
            trust_remote_code=section.trust_remote_code,
            use_safetensors=True,
            output_loading_info=True,
            **head.config_keys(),
            **placement,
            **quantization,
        )
    except OutOfMemoryError:
        raise
    except (OSError, ValueError, ImportError, RuntimeError, SafetensorError) as error:
        # RuntimeError: the weights do not fit the configuration; ImportError: a missing kernel.
        if 'attn_implementation="eager"' in str(error):
            raise ModelError(
                f"model.attn_implementation: transformers has no {section.attn_implementation} for "
                f"{section.model_name_or_path!r}; set eager."
            ) from error
        raise ModelError(_unreachable(section, "model", error)) from error
    if not head.objective.generates:
        # Decoders look for the last token that is no padding; without an id they refuse.
        model.config.get_text_config().pad_token_id = head.pad_token_id
    absent = {*loading["missing_keys"], *(key for key, *_ in loading["mismatched_keys"])}
    new = new_modules(model, head.objective, absent)
    lost = sorted(key for key in absent if not key.startswith(tuple(f"{name}." for name in new)))
    if lost:
        raise ModelError(
            f"{KEY}: {section.model_name_or_path!r} lacks {len(lost)} weights of "
            f"{type(model).__name__}, which would stay random numbers; the first is {lost[0]}."
        )
    return model.requires_grad_(False), new


def load_skeleton(section: ModelSection, head: Head) -> Any:
    """The base model with the output layer of `head` and without weights, on the meta device.

    Raises ModelError, also for a configuration of a model that is far larger than its weights.
    """
    import torch
    from transformers import AutoConfig
    from transformers.models.auto import modeling_auto

    keys = {**head.config_keys()}
    keys.pop("ignore_mismatched_sizes", None)
    try:
        described, headers = checked_model(section, with_weights=True)
        config = AutoConfig.from_pretrained(
            model_location(section),
            revision=section.revision,
            trust_remote_code=section.trust_remote_code,
            **keys,
        )
        with torch.device("meta"):
            model = modeling_auto.__dict__[head.objective.auto_class].from_config(
                config,
                dtype=torch.float32,
                # The configuration may name a kernel that this machine cannot run.
                attn_implementation="eager",
                trust_remote_code=section.trust_remote_code,
            )
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelError(_unreachable(section, "configuration", error)) from error
    _require_weights_for(section, model, most_parameters(described, headers, len(head.labels)))
    if not head.objective.generates:
        model.config.get_text_config().pad_token_id = head.pad_token_id
    return model


def _require_weights_for(section: ModelSection, model: Any, most: int) -> None:
    """A model is filled with random numbers where weights are missing, however many that are."""
    if model.num_parameters() > most:
        raise ModelError(
            f"{KEY}: the config.json of {section.model_name_or_path!r} describes "
            f"{model.num_parameters():,} parameters, and its weights are for {most:,} at most; fetch the "
            "model anew, or do not use it."
        )


def _unreachable(section: ModelSection, what: str, error: Exception) -> str:
    from huggingface_hub import constants

    name, reason = section.model_name_or_path, " ".join(str(error).split()).rstrip(".")
    if Path(model_location(section)).is_dir():
        return f"{KEY}: the {what} of {name!r} cannot be loaded: {reason}."
    if constants.HF_HUB_OFFLINE:
        reason = "HF_HUB_OFFLINE is set"
    return (
        f"{KEY}: {name!r} is no local folder, and the {what} could not be fetched from the Hub: "
        f"{reason}. Give a local folder, or go online (HF_TOKEN for gated models)."
    )
