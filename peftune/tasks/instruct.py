"""Answer an instruction; the prompt is the instruction itself."""

from peftune.tasks.task import Task

TASK = Task(
    name="instruct",
    roles=("prompt", "completion"),
    prompt_template=None,
    objectives={"encoder-decoder": "seq2seq", "decoder": "causal"},
    metrics=("rouge", "short_answers"),
)
