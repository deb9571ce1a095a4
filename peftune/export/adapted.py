"""What an adapter does to each parameter of its base model, by peft's own code, one layer at a time."""

import copy
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora.layer import ParamWrapper
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import ModulesToSaveWrapper
from safetensors.torch import load_file
from transformers import PreTrainedModel

from peftune.errors import ModelError
from peftune.export.adapter import saved_name
from peftune.export.places import check_places
from peftune.untrusted.adapter import WEIGHTS_FILE

Tensors = dict[str, torch.Tensor]
ADAPTER = "default"


class Adapted:
    """An adapter on a base model without weights."""

    def __init__(self, skeleton: PreTrainedModel, folder: Path) -> None:
        check_places(skeleton, folder)
        config = skeleton.config
        ties = config.get_text_config(decoder=True).tie_word_embeddings
        self.ties: dict[str, str] = dict(skeleton.all_tied_weights_keys) if ties else {}
        self.model = PeftModel.from_pretrained(
            copy.deepcopy(skeleton), str(folder), torch_device="cpu", low_cpu_mem_usage=True
        )
        place(self.model, folder)
        self.whole: Tensors = {}
        """Parameters that were trained in full."""
        self.layers: dict[str, list[Any]] = {}
        """The adapted layers that a parameter belongs to, the innermost first."""
        for name, module in self.model.get_base_model().named_modules():
            self._note(name.replace(".base_layer", ""), module)

    def _note(self, path: str, module: Any) -> None:
        if isinstance(module, ModulesToSaveWrapper):
            saved = module.modules_to_save[ADAPTER].state_dict()
            self.whole |= {f"{path}.{name}": tensor for name, tensor in saved.items()}
        elif isinstance(module, ParamWrapper):
            self.layers.setdefault(f"{path}.{module.parameter_name}", []).insert(0, module)
        elif isinstance(module, BaseTunerLayer):
            for name, _ in module.get_base_layer().named_parameters(recurse=False):
                self.layers.setdefault(f"{path}.{name}", []).append(module)

    def layers_of(self, name: str) -> list[Any]:
        return self.layers.get(name, [])

    def touches(self, name: str) -> bool:
        """Whether the adapter has anything for a parameter."""
        return name in self.whole or name in self.layers

    def merged(self, names: list[str], weights: Tensors) -> Tensors:
        """Parameters of the same layers with the adapter, in float32; `weights` are the base's."""
        made = {name: self.whole.get(name, weights.get(name)) for name in names}
        layers = {id(layer): layer for name in names for layer in self.layers_of(name)}
        for name in names:
            for layer in self.layers_of(name):
                _put(layer, name.rpartition(".")[2], weights[name])
        for layer in layers.values():
            layer.merge(safe_merge=False, adapter_names=[ADAPTER])
        for name in names:
            for layer in self.layers_of(name):
                made[name] = _take(layer, name.rpartition(".")[2])
        for layer in layers.values():
            layer.merged_adapters.clear()
        return {name: tensor for name, tensor in made.items() if tensor is not None}


def place(model: PeftModel, folder: Path) -> None:
    """Give the adapter its values; peft leaves them out where the base has none, and only warns about
    tensors that have no place. Raises ModelError for those."""
    tensors = load_file(folder / WEIGHTS_FILE)
    for name, parameter in [*model.named_parameters()]:
        value = tensors.pop(saved_name(name), None)
        if value is not None and value.shape == parameter.shape:
            module, _, leaf = name.rpartition(".")
            filled = torch.nn.Parameter(value.float(), requires_grad=False)
            model.get_submodule(module)._parameters[leaf] = filled
        elif value is not None:
            tensors[name] = value
    if tensors:
        raise ModelError(f"{folder}: the base model has no place for the adapter's {min(tensors)}.")


def _put(layer: Any, leaf: str, value: torch.Tensor) -> None:
    """A copy of the parameter in float32; peft merges in place."""
    wide = value.to(torch.float32, copy=True)
    layer.get_base_layer()._parameters[leaf] = torch.nn.Parameter(wide, requires_grad=False)


def _take(layer: Any, leaf: str) -> torch.Tensor:
    """The merged parameter; the layer is without weights again."""
    base = layer.get_base_layer()
    value: torch.Tensor = base._parameters[leaf].data
    empty = torch.empty_like(value, device="meta")
    base._parameters[leaf] = torch.nn.Parameter(empty, requires_grad=False)
    return value
