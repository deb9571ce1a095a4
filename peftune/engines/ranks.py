"""The processes of a run and the few things they say to each other."""

import gc
import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from traceback import clear_frames
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, InitProcessGroupKwargs
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from peftune.allocator import keep_few_compiled_products, keep_freed_memory
from peftune.engines.heartbeat import Heartbeat, Record
from peftune.engines.launch import Launch
from peftune.engines.lifeline import Lifeline, connect
from peftune.engines.meeting import Meeting, meet
from peftune.engines.section import RanksSection
from peftune.errors import PeftuneError

PATIENCE = RanksSection()


@dataclass(frozen=True)
class Ranks:
    """This process among all of them."""

    accelerator: Accelerator
    lifeline: Lifeline | None = None
    """None where the ranks cannot be connected."""

    @property
    def rank(self) -> int:
        return self.accelerator.process_index

    @property
    def world_size(self) -> int:
        return self.accelerator.num_processes

    @property
    def is_main(self) -> bool:
        return self.accelerator.is_main_process

    @property
    def device(self) -> torch.device:
        return self.accelerator.device

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """Sum of `tensor` over all ranks, on the CPU in float64; a collective."""
        total = tensor.detach().double().to(self.device)
        if self.world_size > 1:
            torch.distributed.all_reduce(total)
        return total.cpu()

    def gather_objects(self, items: list[Any]) -> list[Any]:
        """The lists of all ranks in rank order, as one list; a collective."""
        if self.world_size == 1:
            return items
        # Accelerate's own gather leaves CPU ranks with their local list.
        lists: list[list[Any]] = [[] for _ in range(self.world_size)]
        torch.distributed.all_gather_object(lists, items)
        return [item for part in lists for item in part]

    def from_main(self, compute: Callable[[], Any]) -> Any:
        """What `compute` gives on rank 0, on every rank, or its PeftuneError; a collective."""
        answer: tuple[Any, PeftuneError | None] = (None, None)
        if self.is_main:
            try:
                answer = (compute(), None)
            except PeftuneError as error:
                answer = (None, error)
        found, problem = self.gather_objects([answer])[0]
        if problem is not None:
            raise problem
        return found

    def tensors_from_main(self, own: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The tensors of rank 0, on the CPU of every rank; a collective."""
        if self.world_size == 1:
            return own
        described = [(name, tensor.shape, tensor.dtype) for name, tensor in own.items()]
        found = {}
        for name, shape, dtype in self.from_main(lambda: described):
            tensor = own[name] if self.is_main else torch.empty(shape, dtype=dtype)
            moved = tensor.to(self.device)
            torch.distributed.broadcast(moved, src=0)
            found[name] = moved.cpu()
        return found

    def at(self, stage: str) -> None:
        """Say what this rank does now, so that its end can be told by it."""
        if self.lifeline is not None:
            self.lifeline.at(stage)

    def moved(self) -> None:
        """Say that this rank gets on, in the middle of a stage."""
        if self.lifeline is not None:
            self.lifeline.moved()

    def keep_record(self, folder: Path) -> None:
        """Let rank 0 write into `folder` what all ranks do, from now on."""
        if self.lifeline is not None and self.is_main:
            self.lifeline.record = Record(folder)

    def wait(self) -> None:
        """Return when every rank has arrived; a collective."""
        if self.world_size > 1:
            # Accelerate's own returns at once on CPU ranks whose launcher hides GPUs from them.
            is_gpu = self.device.type == "cuda"
            torch.distributed.barrier(device_ids=[self.device.index] if is_gpu else None)

    def hang_up(self, code: int, error: str = "") -> None:
        """Tell the others that this process ends with `code`, and why."""
        if self.lifeline is not None:
            self.lifeline.close(code, error)

    def hang_up_after_an_error(self, error: BaseException) -> None:
        """A collective fails as well where another rank has ended, and that one's end is the reason."""
        if self.lifeline is not None:
            self.lifeline.end_if_another_has()
        self.hang_up(1, f"{type(error).__name__}: {error}")

    def leave(self, code: int = 0, error: str = "") -> None:
        """End the process group, after everything that refers to it."""
        self.hang_up(code, error)
        gc.collect()
        self.accelerator.state.destroy_process_group()


@contextmanager
def joined_ranks(
    launch: Launch,
    log_with: tuple[str, ...],
    project_dir: str,
    patience: RanksSection = PATIENCE,
    meeting: Meeting | None = None,
) -> Iterator[Ranks]:
    """Inside the block this process belongs to the group that the launcher prepared.

    `meeting` is where the ranks have met already.

    The last reference to a gloo group waits for the group's threads. Python's references release
    the interpreter lock for that and the one in DistributedDataParallel does not, so a thread that
    needs the lock would keep the process from ever ending (pytorch issue 56297). Whatever the block
    built is therefore collected before the group is left, so the block must not leave an engine
    behind in a variable of its own.
    """
    ranks = start_ranks(launch, log_with, project_dir, patience, meeting)
    try:
        yield ranks
    except BaseException as error:
        # The frames of the traceback hold the engine.
        clear_frames(error.__traceback__)
        if isinstance(error, PeftuneError):
            ranks.leave(error.exit_code, str(error))
        else:
            ranks.hang_up_after_an_error(error)
        raise
    ranks.leave()


def start_ranks(
    launch: Launch,
    log_with: tuple[str, ...],
    project_dir: str,
    patience: RanksSection,
    meeting: Meeting | None,
) -> Ranks:
    """Join the process group that the launcher prepared.

    CPU ranks need the gloo backend by name: under DeepSpeed Accelerate otherwise sees one process.
    Precision is not handed over, because the recipe decides it and every engine applies it alike.
    """
    handlers = []
    if not torch.cuda.is_available() or launch.use_cpu:
        # DeepSpeed would look for other accelerators; on CPU ranks it must take this one.
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
        keep_freed_memory()
        keep_few_compiled_products()
        if launch.world_size > 1:
            handlers.append(InitProcessGroupKwargs(backend="gloo"))
    if launch.world_size > 1:
        form_group(launch, meeting or meet(launch, {}, patience))
    accelerator = Accelerator(
        mixed_precision="no",
        gradient_accumulation_steps=1,
        kwargs_handlers=handlers,
        log_with=list(log_with) or None,
        project_dir=project_dir,
    )
    if accelerator.distributed_type is DistributedType.DEEPSPEED:
        # Accelerate has told transformers to shard every model it loads, on whichever ranks load
        # it: the engine shards one model, after the adapter is on it, and a merge loads another.
        unset_hf_deepspeed_config()
    return connected(Ranks(accelerator), patience)


def form_group(launch: Launch, meeting: Meeting) -> None:
    """Make the process group of ranks that have met."""
    on_gpu = torch.cuda.is_available() and not launch.use_cpu
    # Offloaded shards are exchanged where they are: in host memory.
    with_host = launch.engine == "fsdp2" and launch.offload
    on_gpus = "cuda:nccl,cpu:gloo" if with_host else "nccl"
    torch.distributed.init_process_group(
        on_gpus if on_gpu else "gloo",
        store=meeting.store,
        rank=launch.rank,
        world_size=launch.world_size,
    )


def connected(ranks: Ranks, patience: RanksSection) -> Ranks:
    """The same ranks, holding on to each other."""
    if ranks.world_size == 1:
        return replace(ranks, lifeline=Lifeline(Heartbeat(0, socket.gethostname()), [], patience))
    address = os.environ["MASTER_ADDR"]
    lifeline = connect(ranks.rank, ranks.world_size, address, ranks.gather_objects, patience)
    if lifeline is None and ranks.is_main:
        print(
            f"warning: not every rank could connect to rank 0 at {address}, so a rank that dies is only "
            "noticed by the timeout of a collective.",
            file=sys.stderr,
        )
    return replace(ranks, lifeline=lifeline)
