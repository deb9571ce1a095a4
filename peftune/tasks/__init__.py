"""Extension point: one file for each thing a model can be adapted to do."""

from peftune.tasks import chat, classify, instruct, qa, summarize, text, translate
from peftune.tasks.task import Task

TASKS: dict[str, Task] = {
    "classify": classify.TASK,
    "qa": qa.TASK,
    "summarize": summarize.TASK,
    "translate": translate.TASK,
    "instruct": instruct.TASK,
    "chat": chat.TASK,
    "text": text.TASK,
}

__all__ = ["TASKS", "Task"]
