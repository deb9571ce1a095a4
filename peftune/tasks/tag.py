"""Give each word of a text a label: names of people and places, parts of speech."""

from peftune.tasks.task import Task

TASK = Task(
    name="tag",
    roles=("words", "tags"),
    prompt_template=None,
    objectives={"encoder": "tags", "decoder": "tags"},
)
