"""Loads the tokenizer and the frozen base model."""

import json
from pathlib import Path
from typing import Any

from peftune.embedded import EMBEDDED_PREFIX, embedded_path
from peftune.errors import ModelError
from peftune.model.head import Head, new_modules
from peftune.model.section import ModelSection

KEY = "model.model_name_or_path"
TOKENIZER_FILES = ("tokenizer*", "vocab*", "*.model", "*.tiktoken")


def model_location(section: ModelSection) -> str:
    """Folder or Hub id that transformers loads from. Raises ModelError for an unknown place."""
    name = section.model_name_or_path
    if name.startswith(EMBEDDED_PREFIX):
        try:
            return str(embedded_path(name))
        except ValueError as error:
            raise ModelError(f"{KEY}: {error}.") from error
    looks_local = name.startswith((".", "/", "~")) or name.count("/") > 1
    folder = Path(name).expanduser()
    if looks_local and not folder.is_dir():
        raise ModelError(f"{KEY}: {name!r}: no such folder.")
    return str(folder) if folder.is_dir() else name


def is_local(section: ModelSection) -> bool:
    """Whether the model is a folder of this machine. Raises ModelError for an unknown place."""
    return Path(model_location(section)).is_dir()


def check_model_files(section: ModelSection) -> None:
    """Refuse, before anything is loaded, a local model that could only be loaded unsafely."""
    folder = Path(model_location(section))
    if not folder.is_dir():
        return
    config_file = folder / "config.json"
    if not config_file.is_file():
        raise ModelError(f"{KEY}: {section.model_name_or_path!r} has no config.json.")
    _check_weights(section, folder)
    if not section.trust_remote_code and _needs_own_code(_read_config(config_file)):
        raise ModelError(
            f"{KEY}: {section.model_name_or_path!r} brings its own Python code; read it, then set "
            "model.trust_remote_code: true."
        )
    if not any(file for pattern in TOKENIZER_FILES for file in folder.glob(pattern)):
        raise ModelError(
            f"{KEY}: {section.model_name_or_path!r} has no tokenizer; copy tokenizer.json and "
            "tokenizer_config.json of the model into the folder."
        )


def _needs_own_code(config: dict[str, Any]) -> bool:
    """Whether only the repository's code can build the model: transformers' own class goes first."""
    if "auto_map" not in config:
        return False
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    return config.get("model_type") not in CONFIG_MAPPING_NAMES


def _read_config(file: Path) -> dict[str, Any]:
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{KEY}: {file} is not JSON text: {error}.") from error
    if not isinstance(config, dict):
        raise ModelError(f"{KEY}: {file} is not a JSON object.")
    return config


def _check_weights(section: ModelSection, folder: Path) -> None:
    if any(folder.glob("*.safetensors")):
        return
    pickles = sorted(file.name for file in (*folder.glob("*.bin"), *folder.glob("*.pt")))
    if pickles:
        raise ModelError(
            f"{KEY}: {section.model_name_or_path!r} holds pickle weights ({pickles[0]}), which can "
            "run code; convert them to safetensors."
        )
    raise ModelError(f"{KEY}: {section.model_name_or_path!r} has no .safetensors weights.")


def load_tokenizer(section: ModelSection) -> Any:
    """The fast tokenizer, with a pad token. Raises ModelError."""
    from transformers import AutoTokenizer

    check_model_files(section)
    try:
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

    check_model_files(section)
    try:
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

    check_model_files(section)
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
    """The base model with the output layer of `head` and without weights, on the meta device."""
    import torch
    from transformers import AutoConfig
    from transformers.models.auto import modeling_auto

    check_model_files(section)
    keys = {**head.config_keys()}
    keys.pop("ignore_mismatched_sizes", None)
    try:
        config = AutoConfig.from_pretrained(
            model_location(section),
            revision=section.revision,
            trust_remote_code=section.trust_remote_code,
            **keys,
        )
        with torch.device("meta"):
            model = modeling_auto.__dict__[head.objective.auto_class].from_config(
                config, dtype=torch.float32, trust_remote_code=section.trust_remote_code
            )
    except (OSError, ValueError) as error:
        raise ModelError(_unreachable(section, "configuration", error)) from error
    if not head.objective.generates:
        model.config.get_text_config().pad_token_id = head.pad_token_id
    return model


def weight_files(section: ModelSection) -> list[Path]:
    """The safetensors files of the base model, of a folder or of the Hub's cache. Raises ModelError."""
    from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

    index = _file(section, SAFE_WEIGHTS_INDEX_NAME)
    names = [SAFE_WEIGHTS_NAME]
    if index is not None:
        names = sorted({*json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()})
    files = [_file(section, name) for name in names]
    found = [file for file in files if file is not None]
    if len(found) < len(names):
        raise ModelError(f"{KEY}: {section.model_name_or_path!r} lacks {names[files.index(None)]}.")
    return found


def _file(section: ModelSection, name: str) -> Path | None:
    from transformers.utils import cached_file

    found = cached_file(
        model_location(section),
        name,
        revision=section.revision,
        _raise_exceptions_for_missing_entries=False,
    )
    return None if found is None else Path(found)


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
