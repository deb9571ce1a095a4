"""Write a short version of a text or dialogue, scored by ROUGE against the references."""

from peftune.tasks.task import Task

TASK = Task(
    name="summarize",
    roles=("prompt", "completion"),
    prompt_template="{prompt}\n\nSummary:",
    objectives={"encoder-decoder": "seq2seq", "decoder": "causal"},
    metrics=("rouge",),
)
