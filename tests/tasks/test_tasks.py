import pytest

from peftune.data.roles import check_roles, prompt_template
from peftune.data.section import DataSection
from peftune.evaluation.metrics import METRICS
from peftune.objectives import OBJECTIVES
from peftune.tasks import TASKS, Task


@pytest.mark.parametrize("name", TASKS)
def test_a_task_fits_the_data_stage(name: str) -> None:
    task: Task = TASKS[name]
    section = DataSection(train="rows.jsonl")
    assert task.name == name
    check_roles(section, task.roles)
    template = prompt_template(section, task.roles, task.prompt_template)
    # The default prompt may use the prompt role and nothing else: the completion is the answer.
    assert template is None or template.names == (task.roles[0],)


@pytest.mark.parametrize("task", TASKS.values(), ids=lambda task: task.name)
def test_text_that_completes_a_prompt_is_scored(task: Task) -> None:
    assert bool(task.metrics) == bool({"completion", "messages"} & set(task.roles))
    assert set(task.metrics) <= METRICS.keys()
    generates = {OBJECTIVES[name].generates for name in task.objectives.values()}
    assert generates == {task.roles[-1] in ("text", "completion", "messages")}
