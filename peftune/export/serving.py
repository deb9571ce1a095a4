"""The part of a model card that says how the model is used: transformers, vLLM, Ollama."""

from collections.abc import Mapping, Sequence
from string import Formatter
from typing import Any

from peftune.embedded import EMBEDDED_PREFIX
from peftune.export.markdown import fenced
from peftune.objectives import Objective

HERE = "path/to/this/folder"
VLLM_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM takes as --max-lora-rank (vllm/config/lora.py)."""


def usage(
    shown: Mapping[str, Any],
    objective: Objective,
    labels: Sequence[str],
    base: str | None,
    merged: bool,
) -> str:
    """`shown` is the recipe without local paths, `base` the base model's id where it is on the Hub."""
    code = merged_code(objective) if merged else adapter_code(shown, objective, labels, base)
    parts = ["## Use", fenced(code, "python")]
    if shown["export"]["merge"] and not merged:
        loading = f'{objective.auto_class}.from_pretrained("{HERE}/merged")'
        parts.append(f"The folder `merged` holds base and adapter as one model:\n`{loading}`.")
    if shown["data"]["prompt_template"]:
        parts += ["Prompt template:", fenced(shown["data"]["prompt_template"] + "\n", "text")]
    if shown["data"]["chat_template"]:
        parts.append("The prompt is the user's turn of the tokenizer's chat template.")
    if objective.name == "causal":
        parts += merged_served(shown) if merged else adapter_served(shown, base)
    return "\n\n".join(parts)


def merged_code(objective: Objective) -> str:
    return (
        f"from transformers import {objective.auto_class}, AutoTokenizer\n\n"
        f'model = {objective.auto_class}.from_pretrained("{HERE}")\n'
        f'tokenizer = AutoTokenizer.from_pretrained("{HERE}")\n'
    )


def adapter_code(
    shown: Mapping[str, Any], objective: Objective, labels: Sequence[str], base: str | None
) -> str:
    return (
        "from peft import PeftModel\n"
        f"from transformers import {objective.auto_class}, AutoTokenizer\n"
        f"{_base_lines(shown['model'], objective, labels, base)}"
        f'model = PeftModel.from_pretrained(base, "{HERE}")\n'
        f'tokenizer = AutoTokenizer.from_pretrained("{HERE}")\n'
    )


def _base_lines(
    model: Mapping[str, Any], objective: Objective, labels: Sequence[str], base: str | None
) -> str:
    name, load = model["model_name_or_path"], f"{objective.auto_class}.from_pretrained"
    head = f", num_labels={len(labels)}" if labels else ""
    if name.startswith(EMBEDDED_PREFIX):
        imported = "from peftune.embedded import embedded_path\n\n"
        return f'{imported}base = {load}(embedded_path("{name}"){head})\n'
    revision = f', revision="{model["revision"]}"' if model["revision"] else ""
    place = name if base else f"path/to/{name}"
    return f'\nbase = {load}("{place}"{revision}{head})\n'


def adapter_served(shown: Mapping[str, Any], base: str | None) -> list[str]:
    """vLLM's line for an adapter that it can serve beside its base: plain LoRA, nothing in full."""
    adapter = shown["adapter"]
    fitting = [rank for rank in VLLM_RANKS if rank >= adapter.get("r", VLLM_RANKS[-1] + 1)]
    if base is None or adapter["method"] != "lora" or adapter["modules_to_save"] or not fitting:
        return []
    revision = f" --revision {shown['model']['revision']}" if shown["model"]["revision"] else ""
    line = (
        f"vllm serve {base}{revision} --enable-lora --max-lora-rank {fitting[0]} "
        f"--lora-modules {shown['output_dir']}={HERE}\n"
    )
    return ["vLLM, where it has the base model's architecture:", fenced(line, "bash")]


def merged_served(shown: Mapping[str, Any]) -> list[str]:
    """vLLM's line, and Ollama's Modelfile with the prompt that the model was trained on."""
    return [
        "vLLM, where it has this architecture:",
        fenced(f"vllm serve {HERE} --served-model-name {shown['output_dir']}\n", "bash"),
        "Ollama, where it has this architecture: a Modelfile beside the weights, and `ollama create "
        f"{shown['output_dir']}`.",
        fenced(modelfile(shown), "text"),
    ]


def modelfile(shown: Mapping[str, Any]) -> str:
    """A Modelfile. A prompt template with one field has its place in it; Ollama itself knows the chat
    templates of common models."""
    lines = ["FROM .", "PARAMETER temperature 0"]
    template = shown["data"]["prompt_template"]
    if template and not shown["data"]["chat_template"]:
        fields = [name for _, name, _, _ in Formatter().parse(template) if name]
        if len(fields) == 1:
            inside = template.replace(f"{{{fields[0]}}}", "{{ .Prompt }}")
            lines.append(f'TEMPLATE """{inside}"""')
    return "\n".join(lines) + "\n"
