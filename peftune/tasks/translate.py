"""Write the same in another language, scored by BLEU and chrF++ against the references."""

from peftune.tasks.task import Task

TASK = Task(
    name="translate",
    roles=("prompt", "completion"),
    prompt_template=None,
    objectives={"encoder-decoder": "seq2seq", "decoder": "causal"},
    metrics=("translation",),
)
