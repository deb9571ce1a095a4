"""Continue plain text: every token is learnt, and the test loss is the measure."""

from peftune.tasks.task import Task

TASK = Task(name="text", roles=("text",), prompt_template=None, objectives={"decoder": "causal"})
