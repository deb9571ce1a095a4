"""A merged model in fewer bits, as transformers loads it without further arguments."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import BitsAndBytesConfig
from transformers.models.auto import modeling_auto

from peftune.export.settling import aside_of, settle
from peftune.export.tensors import storing_tensors

OTHER_FILES = ("*.json", "*.jinja", "*.txt", "*.model")


def requantize(
    merged: Path,
    out: Path,
    auto_class: str,
    dtype: str,
    config: BitsAndBytesConfig,
    accept: Callable[[Path], None],
) -> None:
    """Write the model in `merged` to `out`, its linear layers quantized as `config` says.

    transformers reads and quantizes tensor by tensor, so that what stands in memory is the small
    model. Written aside, looked at by `accept`, and renamed, as a merge is. Raises StorageError.
    """
    loader: Any = modeling_auto.__dict__[auto_class]
    model = loader.from_pretrained(
        merged,
        dtype=dtype,
        quantization_config=config,
        device_map={"": "cpu"},
        use_safetensors=True,
    )
    aside = aside_of(out)
    shutil.rmtree(aside, ignore_errors=True)
    with storing_tensors(out, model.state_dict().values()):
        aside.mkdir(parents=True)
        model.save_pretrained(aside)
        for file in (one for pattern in OTHER_FILES for one in merged.glob(pattern)):
            if not (aside / file.name).exists() and not file.name.endswith(".index.json"):
                shutil.copy(file, aside / file.name)
    settle(aside, out, accept)
