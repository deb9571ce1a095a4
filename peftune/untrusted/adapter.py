"""What the folder of an adapter may hold: two files that peft reads without running anything."""

from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from peftune.errors import UnsafeFileError
from peftune.untrusted.files import check_files
from peftune.untrusted.json_file import read_object, shown
from peftune.untrusted.model import TOKENIZER_CONFIG, check_texts
from peftune.untrusted.tensor_header import FLOATS, Header, read_header

WEIGHTS_FILE = "adapter_model.safetensors"
CONFIG_FILE = "adapter_config.json"
PREFIX = "base_model.model."
KINDS = ("LORA", "IA3")
INERT = ("megatron_core", "qalora_group_size")
"""Keys that peft always writes, and reads only beside others that are refused."""

ANEW = "Save the adapter anew as a plain one of peft's."

Name = Annotated[str, Field(pattern=r"^[\w.\-]+$", max_length=1000)]
Names = Annotated[list[Name], Field(max_length=20_000)]
Pattern = Annotated[str, Field(max_length=10_000)]
Number = Annotated[float, Field(ge=-1e9, le=1e9)]
Rank = Annotated[int, Field(ge=1)]


class AdapterConfig(BaseModel):
    """The keys of adapter_config.json that every method has. Any other must be empty."""

    model_config = ConfigDict(
        strict=True, extra="allow", allow_inf_nan=False, protected_namespaces=()
    )

    peft_type: str
    task_type: str | None = None
    auto_mapping: dict[str, str | None] | None = None
    base_model_name_or_path: str | None = None
    """Never followed: the recipe says which model is the base."""
    revision: str | None = None
    inference_mode: bool = False
    peft_version: str | None = None
    target_modules: Pattern | Names | None = None
    exclude_modules: Pattern | Names | None = None
    modules_to_save: Names | None = None
    fan_in_fan_out: bool = False


class LoraFileConfig(AdapterConfig):
    """LoRA and DoRA."""

    r: Rank = 8
    lora_alpha: Number = 8
    lora_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    use_rslora: bool = False
    use_dora: bool = False
    lora_bias: bool = False
    bias: Literal["none"] = "none"
    """Others change biases of the base, which no merge would keep."""
    init_lora_weights: bool | Literal["gaussian"] = True
    """The starts that leave the base weights alone. pissa, olora, loftq, corda, eva and lora_ga compute
    with the base, or with data, while an adapter is loaded."""
    layers_to_transform: list[int] | int | None = None
    layers_pattern: list[Pattern] | Pattern | None = None
    rank_pattern: dict[Pattern, Rank] | None = None
    alpha_pattern: dict[Pattern, Number] | None = None
    target_parameters: Names | None = None
    ensure_weight_tying: bool = False


class Ia3FileConfig(AdapterConfig):
    """(IA)³."""

    feedforward_modules: Pattern | Names | None = None
    init_ia3_weights: bool = True


def check_adapter(folder: Path) -> tuple[dict[str, Any], Header]:
    """Configuration and header of an adapter. Raises UnsafeFileError for what may not be read, or would
    make peft run, fetch or fill something."""
    check_files(folder)
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise UnsafeFileError(f"{folder} has no {CONFIG_FILE}; name the folder of an adapter.")
    config = read_object(path)
    _check_config(path, config)
    header = _weights(folder)
    _check_ranks(path, config, header)
    return config, header


def check_run(run: Path, trusts_code: bool) -> None:
    """Raise UnsafeFileError where the adapter of a run, or the tokenizer beside it, may not be read."""
    check_adapter(run)
    if "auto_map" in check_texts(run).get(TOKENIZER_CONFIG, {}) and not trusts_code:
        raise UnsafeFileError(
            f"{run / TOKENIZER_CONFIG} brings its own Python code; read it, then set "
            "model.trust_remote_code: true."
        )


def read_labels(path: Path, objectives: Collection[str]) -> dict[str, Any]:
    """What a run says of its labels, empty where it has none. Raises UnsafeFileError for other things."""
    read = read_object(path) if path.is_file() else {}
    labels = read.get("labels", [])
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise UnsafeFileError(f"{path}: labels is no list of names; take the file of the run.")
    objective = read.get("objective", next(iter(objectives)))
    if not isinstance(objective, str) or objective not in objectives:
        raise UnsafeFileError(f"{path}: objective: {shown(objective)} is none that peftune knows.")
    return read


def _check_config(path: Path, config: dict[str, Any]) -> None:
    kind = config.get("peft_type")
    if kind not in KINDS:
        raise UnsafeFileError(f"{path}: peft_type: {shown(kind)} is none of {', '.join(KINDS)}.")
    try:
        known = (LoraFileConfig if kind == "LORA" else Ia3FileConfig).model_validate(config)
    except ValidationError as error:
        found = error.errors(include_url=False)[0]
        key, value = found["loc"][0], shown(found["input"])
        raise UnsafeFileError(
            f"{path}: {key}: {value} cannot be: {_reason(error)}. {ANEW}"
        ) from error
    for key, value in (known.model_extra or {}).items():
        if value and key not in INERT and type(value) not in (int, float):
            raise UnsafeFileError(
                f"{path}: {shown(key)[1:-1]}: {shown(value)} is not supported, as it could run code or "
                "change the base model; use an adapter without it."
            )


def _reason(error: ValidationError) -> str:
    """What is wrong with the first value, for each of the types that it may have."""
    messages = error.errors(include_url=False)
    key = messages[0]["loc"][0]
    same = [one["msg"] for one in messages if one["loc"][0] == key]
    return ", or ".join(dict.fromkeys(text[0].lower() + text[1:] for text in same[:3]))


def _weights(folder: Path) -> Header:
    path = folder / WEIGHTS_FILE
    if not path.is_file():
        others = sorted(one.name for one in folder.glob("adapter_model.*"))
        kind = f"holds {others[0]}, which can run code" if others else f"has no {WEIGHTS_FILE}"
        raise UnsafeFileError(f"{folder} {kind}; convert the adapter to safetensors.")
    header = read_header(path)
    for name, entry in header.entries.items():
        if not name.startswith(PREFIX) or entry.dtype not in FLOATS:
            raise UnsafeFileError(
                f"{path}: the tensor {shown(name)} of type {entry.dtype} is none of an adapter, whose "
                f"names start with {PREFIX} and whose values are floating-point numbers."
            )
    if not header.entries:
        raise UnsafeFileError(
            f"{path} has no tensors; it was saved from another rank's empty shards."
        )
    return header


def _check_ranks(path: Path, config: dict[str, Any], header: Header) -> None:
    """A rank makes peft allocate; the tensors that are there tell which ranks there can be."""
    patterns = config.get("rank_pattern") or {}
    for key, rank in [("r", config.get("r", 0)), *(("rank_pattern", r) for r in patterns.values())]:
        if rank > header.largest_dimension:
            raise UnsafeFileError(
                f"{path}: {key}: {rank:,} is more than any tensor of {WEIGHTS_FILE} has, "
                f"{header.largest_dimension:,}; the two files do not belong together."
            )
    for key in ("rank_pattern", "alpha_pattern"):
        count, tensors = len(config.get(key) or {}), len(header.entries)
        if count > tensors:
            raise UnsafeFileError(
                f"{path}: {key} names {count:,} layers, and {WEIGHTS_FILE} has {tensors:,} tensors; the "
                "two files do not belong together."
            )
