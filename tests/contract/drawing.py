"""What the property tests draw: ragged rows, and layouts to compute them in."""

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from hypothesis import strategies as st

from peftune.data.rows import IGNORED, EncodedRow
from peftune.objectives import ObjectiveName
from tests.contract.cases import LABELS, Case
from tests.contract.models import LEARNT, VOCABULARY

Draw = Callable[[st.SearchStrategy[Any]], Any]
ADAPTERS: tuple[dict[str, Any], ...] = (
    {"method": "lora", "r": 4, "lora_alpha": 8, "lora_dropout": 0.1},
    {"method": "lora", "r": 2, "lora_alpha": 4, "use_rslora": True, "loraplus_lr_ratio": 4.0},
    {"method": "dora", "r": 4, "lora_alpha": 8, "lora_dropout": 0.1},
    {"method": "ia3"},
)


def rows(objective: ObjectiveName, random: Random) -> tuple[EncodedRow, ...]:
    """2 to 11 rows of very unequal length."""
    return tuple(row(objective, index, random) for index in range(random.randint(2, 11)))


def row(objective: ObjectiveName, index: int, random: Random) -> EncodedRow:
    """A row of 1 to 40 tokens; where tokens are learnt, some or one or none of them."""
    ids = tokens(random.choice((random.randint(1, 6), random.randint(1, 40))), random)
    match objective:
        case "label":
            return EncodedRow((*ids, 1), (random.randrange(len(LABELS)),), (), index)
        case "span":
            first = random.randrange(len(ids))
            return EncodedRow(ids, (first, random.randrange(first, len(ids))), (), index)
        case "seq2seq":
            target = tokens(random.choice((0, random.randint(1, 12))), random)
            return EncodedRow(ids, target or (IGNORED,), (), index)
    hidden = random.choice((0, len(ids), random.randrange(len(ids))))
    choices = len(LABELS) if objective == "tags" else VOCABULARY
    labels = (IGNORED,) * hidden + tuple(token % choices for token in ids[hidden:])
    # Nothing stands before the first token of a causal row, so it is never learnt.
    return EncodedRow(ids, (IGNORED, *labels[1:]) if objective == "causal" else labels, (), index)


def tokens(length: int, random: Random) -> tuple[int, ...]:
    return tuple(random.randrange(2, VOCABULARY) for _ in range(length))


@st.composite
def cases(draw: Draw, name: str, folder: Path, worlds: tuple[int, ...]) -> Case:
    """A case of a model in one of the layouts with so many ranks."""
    objective = draw(st.sampled_from(LEARNT[name]))
    world = draw(st.sampled_from(worlds))
    engines = ("ddp", "zero1", "zero2", "zero3", "fsdp2") if world > 1 else ("ddp",)
    engine = draw(st.sampled_from(engines))
    per_device = draw(st.integers(1, 4))
    # One number, not one choice for each token: hypothesis varies the layout instead.
    random = Random(draw(st.integers(0, 2**32)))
    return Case(
        folder=str(folder),
        objective=objective,
        rows=rows(objective, random),
        adapter=draw(st.sampled_from(ADAPTERS)),
        engine=engine,
        world_size=world,
        offload=engine == "zero3" and draw(st.booleans()),
        eval_batch=draw(st.integers(1, 12)),
        attention="eager" if name == "deberta" else "sdpa",
        train={
            "per_device_train_batch_size": per_device,
            "global_batch_size": per_device * world * draw(st.integers(1, 4)),
            "max_steps": 2,
            "learning_rate": 1.0e-2,
            "adam_epsilon": 1.0e-3,
            "max_grad_norm": 0.5,
            "padding_free": draw(st.booleans()),
            "max_tokens_per_pass": draw(st.sampled_from((None, 16, 40))),
            "gradient_checkpointing": draw(st.sampled_from((False, True, "selective"))),
            "label_smoothing_factor": 0.0
            if objective == "span"
            else draw(st.sampled_from((0.0, 0.1))),
            "neftune_noise_alpha": None
            if objective == "seq2seq"
            else draw(st.sampled_from((None, 5.0))),
        },
    )
