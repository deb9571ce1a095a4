"""Extension point: one file for each thing a model can be adapted to do."""

from peftune.tasks import chat, classify, extract, instruct, qa, summarize, tag, text, translate
from peftune.tasks.task import Task

TASKS: dict[str, Task] = {
    "classify": classify.TASK,
    "tag": tag.TASK,
    "extract": extract.TASK,
    "qa": qa.TASK,
    "summarize": summarize.TASK,
    "translate": translate.TASK,
    "instruct": instruct.TASK,
    "chat": chat.TASK,
    "text": text.TASK,
}

__all__ = ["TASKS", "Task"]
