"""Answer a question by a stretch of a context, or say that the context does not hold the answer."""

from peftune.tasks.task import Task

TASK = Task(
    name="extract",
    roles=("context", "question", "answers"),
    prompt_template=None,
    objectives={"encoder": "span"},
)
