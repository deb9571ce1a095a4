"""Give a text, or a pair of texts, one label, several labels or a number."""

from peftune.tasks.task import Task

TASK = Task(
    name="classify",
    roles=("text", "label"),
    prompt_template="{text}",
    objectives={"encoder": "label", "encoder-decoder": "label", "decoder": "label"},
)
