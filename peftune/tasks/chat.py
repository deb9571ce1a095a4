"""Answer in a conversation: system prompts, many turns, tools; every answer is learnt."""

from peftune.tasks.task import Task

TASK = Task(
    name="chat",
    roles=("messages",),
    prompt_template=None,
    objectives={"decoder": "causal"},
    metrics=("rouge", "short_answers"),
)
