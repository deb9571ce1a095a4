"""Learn plain text as the class of model was pretrained on it; the test loss is the measure.

A decoder learns every token. From an encoder single tokens are hidden, from an encoder-decoder spans.
"""

from peftune.tasks.task import Task

TASK = Task(
    name="text",
    roles=("text",),
    prompt_template=None,
    objectives={"encoder": "masked", "encoder-decoder": "corrupted", "decoder": "causal"},
)
