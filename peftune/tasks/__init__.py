"""Extension point: one file for each thing a model can be adapted to do."""

from peftune.tasks import instruct, summarize, text
from peftune.tasks.task import Task

TASKS: dict[str, Task] = {
    "summarize": summarize.TASK,
    "instruct": instruct.TASK,
    "text": text.TASK,
}

__all__ = ["TASKS", "Task"]
