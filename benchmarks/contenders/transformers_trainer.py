"""Runs one job with Hugging Face `Trainer` or `Seq2SeqTrainer`, or with TRL's `SFTTrainer`, and peft.

    python transformers_trainer.py JOB.json

The job names the folder, the kind, the trainer and its settings; rows come encoded and in the order of
training, which no contender changes. Writes what `compare.py` reads to `result` of the job.
"""

import json
import resource
import sys
import time

STARTED = time.time()

from importlib.metadata import version  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import datasets  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from peft import LoraConfig, get_peft_model  # noqa: E402
from started import Clock, start_as  # noqa: E402
from torch.utils.data import SequentialSampler  # noqa: E402
from transformers import AutoTokenizer  # noqa: E402

CLASSES = {
    "decoder": ("AutoModelForCausalLM", "CAUSAL_LM"),
    "encoder": ("AutoModelForSequenceClassification", "SEQ_CLS"),
    "encoder-decoder": ("AutoModelForSeq2SeqLM", "SEQ_2_SEQ_LM"),
}


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text())
    torch.set_num_threads(job["threads"])
    auto_class, task_type = CLASSES[job["kind"]]
    model = getattr(transformers, auto_class).from_pretrained(
        job["model"], dtype=getattr(torch, job["dtype"]), **quantization(job)
    )
    lora = LoraConfig(task_type=task_type, r=16, lora_alpha=32, target_modules="all-linear")
    clock = Clock()
    rows = datasets.Dataset.from_list(
        [json.loads(line) for line in Path(job["rows"]).read_text().splitlines()]
    )
    make = sft_trainer if job["trainer"] == "trl" else plain_trainer
    trainer = make(job, model, lora, rows, AutoTokenizer.from_pretrained(job["model"]))
    trainer._get_train_sampler = lambda *_: SequentialSampler(trainer.train_dataset)
    trainer.add_callback(clock)
    start_as(trainer.model, Path(job["start"]))
    trainer.train()
    result = {
        "ends": clock.ends,
        "started": STARTED,
        "loss": [log["loss"] for log in clock.logs],
        "grad_norm": [float(log["grad_norm"]) for log in clock.logs],
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "versions": {
            name: version(name) for name in ("torch", "transformers", "peft", *job["packages"])
        },
    }
    Path(job["result"]).write_text(json.dumps(result))


def quantization(job: dict[str, Any]) -> dict[str, Any]:
    """As peftune's recipe quantizes the base model."""
    if job["quantization"] is None:
        return {}
    if job["quantization"] == "bnb-int8":
        config = transformers.BitsAndBytesConfig(load_in_8bit=True)
    else:
        config = transformers.BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=getattr(torch, job["dtype"]),
        )
    return {"quantization_config": config, "device_map": {"": "cpu"}}


def settings(job: dict[str, Any]) -> dict[str, Any]:
    """What every trainer of transformers is told."""
    return {
        "output_dir": job["output"],
        "per_device_train_batch_size": job["batch"],
        "max_steps": job["steps"],
        "learning_rate": 1.0e-4,
        "lr_scheduler_type": "constant",
        "weight_decay": 0.0,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "use_cpu": True,
        "bf16": False,
        "seed": 0,
        "disable_tqdm": True,
        **job["settings"],
    }


def plain_trainer(
    job: dict[str, Any], model: Any, lora: LoraConfig, rows: Any, tokenizer: Any
) -> Any:
    """`Trainer` with dynamic padding; `Seq2SeqTrainer` where there is a decoder beside an encoder."""
    model = get_peft_model(model, lora)
    if job["kind"] == "encoder-decoder":
        arguments: Any = transformers.Seq2SeqTrainingArguments(**settings(job))
        collator = transformers.DataCollatorForSeq2Seq(tokenizer, model=model)
        trainer_class: Any = transformers.Seq2SeqTrainer
    else:
        arguments = transformers.TrainingArguments(**settings(job))
        collator = transformers.DataCollatorWithPadding(tokenizer)
        trainer_class = transformers.Trainer
    if job["kind"] == "encoder":
        rows = rows.map(lambda row: {"labels": row["labels"][0]})
    return trainer_class(
        model=model,
        args=arguments,
        train_dataset=rows,
        data_collator=collator,
        processing_class=tokenizer,
    )


def sft_trainer(
    job: dict[str, Any], model: Any, lora: LoraConfig, rows: Any, tokenizer: Any
) -> Any:
    """TRL's `SFTTrainer` on rows that are encoded already, learning completions."""
    from trl import SFTConfig, SFTTrainer

    rows = rows.map(
        lambda row: {"completion_mask": [int(label != -100) for label in row["labels"]]},
        remove_columns=["labels"],
    )
    arguments = SFTConfig(**settings(job), max_length=2048, completion_only_loss=True)
    return SFTTrainer(
        model=model,
        args=arguments,
        train_dataset=rows,
        processing_class=tokenizer,
        peft_config=lora,
    )


if __name__ == "__main__":
    main()
