"""Answer a question in the model's own words, scored by exact match and F1 as SQuAD does."""

from peftune.tasks.task import Task

TASK = Task(
    name="qa",
    roles=("prompt", "completion"),
    prompt_template=None,
    objectives={"encoder-decoder": "seq2seq", "decoder": "causal"},
    metrics=("answers",),
)
