"""Runs one job with LLaMA-Factory's supervised fine-tuning and peft.

    python llamafactory_sft.py JOB.json

The job is that of `transformers_trainer.py`. LLaMA-Factory reads texts, so the encoded rows are decoded
again; words and tokens of the benchmark are the same thing. Writes what `compare.py` reads.
"""

import json
import os
import resource
import shutil
import sys
import time

STARTED = time.time()
os.environ["DISABLE_VERSION_CHECK"] = "1"

from importlib.machinery import ModuleSpec  # noqa: E402
from importlib.metadata import version  # noqa: E402
from pathlib import Path  # noqa: E402
from types import ModuleType  # noqa: E402
from typing import Any  # noqa: E402

import torch  # noqa: E402

# Imported for sounds, of which there are none; its builds do not go with every torch.
sys.modules["torchaudio"] = ModuleType("torchaudio")
sys.modules["torchaudio"].__spec__ = ModuleSpec("torchaudio", None)

from llamafactory.train.tuner import run_exp  # noqa: E402
from started import Clock, start_as  # noqa: E402
from transformers import AutoTokenizer  # noqa: E402

LORA = {"finetuning_type": "lora", "lora_rank": 16, "lora_alpha": 32, "lora_target": "all"}


class Started(Clock):
    """Gives what learns its start, when LLaMA-Factory has made it."""

    def __init__(self, start: Path) -> None:
        super().__init__()
        self.start = start

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        start_as(kwargs["model"], self.start)


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text())
    torch.set_num_threads(job["threads"])
    folder = Path(job["output"])
    shutil.rmtree(folder, ignore_errors=True)
    model = readable_model(Path(job["model"]), folder / "model")
    write_texts(Path(job["rows"]), folder, AutoTokenizer.from_pretrained(model))
    clock = Started(Path(job["start"]))
    run_exp(arguments(job, folder, model), callbacks=[clock])
    result = {
        "ends": clock.ends,
        "started": STARTED,
        "loss": [log["loss"] for log in clock.logs],
        "grad_norm": [float(log["grad_norm"]) for log in clock.logs],
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "versions": {
            name: version(name) for name in ("torch", "transformers", "peft", "llamafactory")
        },
    }
    Path(job["result"]).write_text(json.dumps(result))


def readable_model(model: Path, copy: Path) -> Path:
    """The model with a tokenizer class that this version of transformers knows."""
    shutil.copytree(model, copy)
    file = copy / "tokenizer_config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps({**config, "tokenizer_class": "PreTrainedTokenizerFast"}))
    return copy


def write_texts(rows: Path, folder: Path, tokenizer: Any) -> None:
    """The rows as texts, the end token among them: this template adds none."""
    with (folder / "rows.jsonl").open("w") as out:
        for line in rows.read_text().splitlines():
            row = json.loads(line)
            shown = sum(label == -100 for label in row["labels"])
            ids = row["input_ids"]
            texts = {
                "prompt": tokenizer.decode(ids[:shown]),
                "response": tokenizer.decode(ids[shown:]),
            }
            out.write(json.dumps(texts) + "\n")
    columns = {"prompt": "prompt", "response": "response"}
    listed = {"rows": {"file_name": "rows.jsonl", "columns": columns}}
    (folder / "dataset_info.json").write_text(json.dumps(listed))


def arguments(job: dict[str, Any], folder: Path, model: Path) -> dict[str, Any]:
    return {
        **LORA,
        "stage": "sft",
        "do_train": True,
        "model_name_or_path": str(model),
        "dataset": "rows",
        "dataset_dir": str(folder),
        "template": "empty",
        "cutoff_len": 2048,
        "preprocessing_num_workers": 1,
        "disable_shuffling": True,
        "output_dir": str(folder / "out"),
        "per_device_train_batch_size": job["batch"],
        "gradient_accumulation_steps": 1,
        "max_steps": job["steps"],
        "learning_rate": 1.0e-4,
        "lr_scheduler_type": "constant",
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": True,
        "pure_bf16": job["dtype"] == "bfloat16",
        "seed": 0,
        **job["settings"],
    }


if __name__ == "__main__":
    main()
