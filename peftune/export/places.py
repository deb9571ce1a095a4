"""Whether an adapter belongs to a base model, told without loading either.

peft's own code makes the adapter that the configuration describes on a model without weights, and the
file must have exactly its tensors.
"""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peft import PeftConfig, get_peft_model
from peft.utils import get_peft_model_state_dict
from transformers import PreTrainedModel

from peftune.errors import UnsafeFileError
from peftune.untrusted.adapter import CONFIG_FILE, WEIGHTS_FILE, check_adapter
from peftune.untrusted.json_file import shown
from peftune.untrusted.patterns import check_patterns, patterns_of
from peftune.untrusted.tensor_header import Header, check_finite

Shapes = dict[str, tuple[int, ...]]


def check_places(skeleton: PreTrainedModel, folder: Path) -> None:
    """Check the adapter in `folder` against a base model on the meta device.

    Raises UnsafeFileError for a file or configuration that is unsafe, for a tensor that the base has no
    place for or that has another shape, and for values that are not finite.
    """
    config, header = check_adapter(folder)
    modules = [name for name, _ in skeleton.named_modules()]
    check_patterns(patterns_of(config), modules, folder / CONFIG_FILE)
    _check_shapes(folder / WEIGHTS_FILE, header, _expected(skeleton, folder / CONFIG_FILE, config))
    check_finite(header)


def _expected(skeleton: PreTrainedModel, file: Path, config: Mapping[str, Any]) -> Shapes:
    """Name and shape of each tensor that an adapter with this configuration has on this base."""
    try:
        # The base that the file names is not asked for.
        described = PeftConfig.from_peft_type(**{**config, "base_model_name_or_path": None})
        made = get_peft_model(copy.deepcopy(skeleton), described, low_cpu_mem_usage=True)
        state = get_peft_model_state_dict(made, save_embedding_layers=False)
    except (ValueError, TypeError, KeyError, AttributeError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise UnsafeFileError(f"{file} does not fit the base model: {reason}") from error
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def _check_shapes(file: Path, header: Header, expected: Shapes) -> None:
    for name, entry in header.entries.items():
        if name not in expected:
            raise UnsafeFileError(
                f"{file}: the base model has no place for the adapter's {shown(name)}; set "
                "model.model_name_or_path to the model that it was trained on."
            )
        if entry.shape != expected[name]:
            raise UnsafeFileError(
                f"{file}: {shown(name)} has the shape {list(entry.shape)}, and by base model and "
                f"{CONFIG_FILE} it is {list(expected[name])}; they do not belong together."
            )
    missing = [name for name in expected if name not in header.entries]
    if missing:
        raise UnsafeFileError(
            f"{file} lacks {len(missing)} of the tensors that {CONFIG_FILE} describes, the first is "
            f"{missing[0]}; they do not belong together."
        )
