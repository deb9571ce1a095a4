"""Processes that stay: groups of gloo ranks that compute one case after another."""

import os
import pickle
import traceback
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from peftune.engines.build_lock import LONGEST_BUILD_S
from tests.contract.cases import Case, Outcome, run

# Starting from one process that has imported everything saves seconds for each rank.
PRELOADED = ["deepspeed", "bitsandbytes", "peftune.pipeline", "tests.contract.cases"]


def _work(rank: int, world_size: int, meeting: str, pipe: Connection) -> None:
    """One rank: computes what comes through the pipe."""
    import torch

    torch.set_num_threads(1)
    names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world_size}
    os.environ.update({name: str(value) for name, value in names.items()})
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{meeting}", rank=rank, world_size=world_size
    )
    while True:
        case = receive(pipe)
        try:
            send(pipe, (run(case, rank), ""))
        except Exception:
            send(pipe, (None, traceback.format_exc()))


def send(pipe: Connection, value: Any) -> None:
    """By value: a pipe's own way gives each tensor a file that stays open as long as it lives."""
    pipe.send_bytes(pickle.dumps(value))


def receive(pipe: Connection) -> Any:
    return pickle.loads(pipe.recv_bytes())


class Group:
    """So many ranks."""

    def __init__(self, world_size: int, folder: Path) -> None:
        os.environ["DS_ACCELERATOR"] = "cpu"
        context: Any = get_context("forkserver")
        context.set_forkserver_preload(PRELOADED)
        meeting = str(folder / f"meeting-{world_size}")
        pairs = [context.Pipe() for _ in range(world_size)]
        self.pipes = [ours for ours, _ in pairs]
        self.processes = [
            context.Process(target=_work, args=(rank, world_size, meeting, theirs), daemon=True)
            for rank, (_, theirs) in enumerate(pairs)
        ]
        for process, (_, theirs) in zip(self.processes, pairs, strict=True):
            process.start()
            # A rank that dies then ends its pipe.
            theirs.close()

    def run(self, case: Case) -> list[Outcome]:
        """What each rank found. An error of any of them is raised, and ends the group.

        The first case of ZeRO waits for DeepSpeed's code to be compiled, which takes minutes on a busy
        machine, and a rank that is killed meanwhile leaves a lock for all that follow.
        """
        for pipe in self.pipes:
            send(pipe, case)
        answers: dict[Any, Outcome] = {}
        while len(answers) < len(self.pipes):
            ready = wait([pipe for pipe in self.pipes if pipe not in answers], LONGEST_BUILD_S)
            for pipe in ready:
                outcome, error = receive(pipe)  # type: ignore[union-attr]
                answers[pipe] = outcome
                if error:
                    self.stop()
                    raise RuntimeError(error)
            if not ready:
                self.stop()
                raise RuntimeError(f"no answer from the ranks: {case}")
        return [answers[pipe] for pipe in self.pipes]

    def stop(self) -> None:
        for process in self.processes:
            process.kill()
            process.join()
