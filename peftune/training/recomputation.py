"""Layers that are computed again in the backward pass instead of keeping what they computed."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial

from transformers import PreTrainedModel

from peftune.model.devices import kernels_again
from peftune.model.documents import Reading, reading_again, reading_now
from peftune.model.remembering import Memory, with_memory
from peftune.training.draws import RowDraws
from peftune.training.dropout import drawing_now, dropout_from
from peftune.training.section import Recomputation

Contexts = tuple[AbstractContextManager[None], AbstractContextManager[None]]


def recompute(model: PreTrainedModel, chosen: Recomputation) -> None:
    """Let each layer of `model` keep its input alone (True), or what its products made ("selective")."""
    if chosen:
        contexts = partial(checkpoint_contexts, chosen == "selective")
        model.gradient_checkpointing_enable({"use_reentrant": False, "context_fn": contexts})


def checkpoint_contexts(selective: bool) -> Contexts:
    """`context_fn` of torch.utils.checkpoint: a recomputed layer reads and draws what it did before."""
    draws, reading = drawing_now(), reading_now()
    if not selective:
        return nullcontext(), _again(draws, reading, None)
    memory = Memory()
    return with_memory(memory, recalls=False), _again(draws, reading, memory)


@contextmanager
def _again(
    draws: RowDraws | None, reading: Reading | None, memory: Memory | None
) -> Iterator[None]:
    with ExitStack() as contexts:
        contexts.enter_context(kernels_again())
        if reading is not None:
            contexts.enter_context(reading_again(reading))
        if draws is not None:
            contexts.enter_context(dropout_from(draws))
        if memory is not None:
            contexts.enter_context(with_memory(memory, recalls=True))
        yield
