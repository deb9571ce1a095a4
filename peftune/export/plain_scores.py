"""Opens a model with transformers and peft alone, and writes its scores for given inputs.

python -I plain_scores.py REQUEST.json

A script of its own, because it proves what others can do with the files: it runs in a fresh process, in
which peftune cannot be imported. REQUEST.json names models, each as
`peftune.export.parity.Opened` has them, the probe, and a file for the scores of each.
"""

import json
import sys
from importlib.abc import MetaPathFinder
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import BitsAndBytesConfig
from transformers.models.auto import modeling_auto

Tensors = dict[str, torch.Tensor]
INPUTS = (
    "input_ids",
    "attention_mask",
    "token_type_ids",
    "decoder_input_ids",
    "decoder_attention_mask",
)
ROOM = 1.3
"""Free memory of a GPU, in sizes of the model, from which it is used."""


class Without(MetaPathFinder):
    """Refuses a package, however it could be found."""

    def __init__(self, package: str) -> None:
        self.package = package

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name.partition(".")[0] == self.package:
            raise ImportError(f"{name} must not be needed to open an artefact")


def main(request_file: str) -> None:
    with open(request_file, encoding="utf-8") as file:
        request = json.load(file)
    probe = load_file(request["probe"])
    for how, out in zip(request["models"], request["out"], strict=True):
        save_file(all_scores(how, probe), out)


def all_scores(how: dict[str, Any], probe: Tensors) -> Tensors:
    """`adapted`, and `base` where there is an adapter to switch off."""
    model = opened(how)
    found = {"adapted": scores(model, probe)}
    if how["adapter"] is not None:
        with model.disable_adapter():
            found["base"] = scores(model, probe)
    return found


def opened(how: dict[str, Any]) -> Any:
    """The model in eval mode, with its adapter if it names one."""
    device = device_for(how["bytes"])
    quantization, attention = how["quantization"], how["attn_implementation"]
    if device == "cpu" and attention == "flash_attention_2":
        attention = "sdpa"
    keys = (
        {}
        if quantization is None
        else {
            "quantization_config": BitsAndBytesConfig.from_dict(quantization),
            "device_map": {"": device},
        }
    )
    model = modeling_auto.__dict__[how["auto_class"]].from_pretrained(
        how["model"],
        revision=how["revision"],
        dtype=how["dtype"],
        attn_implementation=attention,
        trust_remote_code=how["trust_remote_code"],
        use_safetensors=True,
        **how["head"],
        **keys,
    )
    if keys:
        compute_plainly(model)
    if how["adapter"] is not None:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, how["adapter"])
    return (model if keys else model.to(device)).eval()


def compute_plainly(model: torch.nn.Module) -> None:
    """Keep 4-bit layers from bitsandbytes' kernel for inference on CPUs with AVX-512 BF16, which rounds
    to bfloat16 whatever the model's dtype: what is proved are the files, not a kernel."""
    for module in model.modules():
        if type(module).__name__ == "Linear4bit":
            module.support_avx512bf16_for_cpu = False  # type: ignore[assignment]


def device_for(size: int) -> str:
    """A GPU that has room for the model beside what else is on it, else the CPU."""
    if torch.cuda.is_available() and torch.cuda.mem_get_info()[0] > ROOM * size:
        return "cuda"
    return "cpu"


@torch.no_grad()
def scores(model: Any, probe: Tensors) -> torch.Tensor:
    """Scores at the probe's places, float32 (places, outputs): tokens, labels, or start and end."""
    inputs = {name: probe[name].to(model.device) for name in INPUTS if name in probe}
    output = model(**inputs)
    if "start_logits" in output:
        found = torch.stack([output["start_logits"], output["end_logits"]], dim=-1)
    else:
        found = output["logits"]
    return at_places(found.float().cpu(), probe)


def at_places(found: torch.Tensor, probe: Tensors) -> torch.Tensor:
    """Of scores (rows, outputs) or (rows, tokens, outputs), those at the probe's places."""
    rows = found[probe["rows"]]
    if "tokens" in probe:
        rows = rows[torch.arange(len(rows)), probe["tokens"]]
    return rows.contiguous()


if __name__ == "__main__":
    sys.meta_path.insert(0, Without("peftune"))
    main(sys.argv[1])
