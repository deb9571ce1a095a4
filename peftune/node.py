"""Starts the ranks of one node for a scheduler, and ends as they do.

python -m peftune.node --config-file FILE --nodes N --processes P --node-rank-from VARIABLE RECIPE
[section.key=value …]

The first node is MASTER_ADDR, at MASTER_PORT. A scheduler acts on exit codes and has its own patience
after a signal, where `accelerate launch` turns every code into 1 and kills ranks that take longer than
thirty seconds over their last checkpoint. So the ranks are started here, with the variables that
Accelerate makes of its file.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

from peftune.errors import Interrupted
from peftune.signals import STOPPING

RUN = Path(__file__).resolve().parent / "run.py"
STOPPED = Interrupted.exit_code
AGAIN_S = 2.0
"""Ranks that are still starting hear nothing, so they are told until they have ended."""
PATIENCE_S = 120.0
"""How long ranks may live after one of them has failed."""
POLL_S = 0.1


def main() -> int:
    """Start the ranks of this node; returns the exit code of the node."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--config-file", required=True)
    parser.add_argument("--nodes", type=int, required=True)
    parser.add_argument("--processes", type=int, required=True)
    parser.add_argument("--node-rank-from", required=True)
    parser.add_argument("run", nargs=argparse.REMAINDER)
    given = parser.parse_args()
    with Processes() as processes:
        shared = accelerate_variables(given.config_file, given.processes)
        node = int(os.environ[given.node_rank_from])
        for place in places(node, given.nodes, given.processes):
            processes.start([sys.executable, str(RUN), *given.run], shared | place)
        return processes.code()


class Processes:
    """The ranks of this node. Inside, signals are for them: each is told to stop until it has."""

    def __init__(self, patience_s: float = PATIENCE_S) -> None:
        self.patience_s = patience_s
        self.started: list[subprocess.Popen[bytes]] = []
        self.asked: int | None = None

    def __enter__(self) -> Self:
        for number in STOPPING:
            signal.signal(number, self._ask)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number in STOPPING:
            signal.signal(number, signal.SIG_DFL)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = self.asked or number

    def start(self, command: Sequence[str], variables: Mapping[str, str]) -> None:
        """Start one more, unless all have been told to stop before it began.

        Until it listens to signals itself they do not end it: an import is no place to stop at.
        """
        if self.asked is None:
            process = subprocess.Popen(command, env=variables, preexec_fn=ignore_signals)
            self.started.append(process)

    def code(self) -> int:
        """The exit code of the node, when all have ended; after one that failed none has long."""
        failed_at: float | None = None
        told_at = -AGAIN_S
        while any(process.poll() is None for process in self.started):
            now = time.monotonic()
            if self.asked is not None and now - told_at >= AGAIN_S:
                told_at = now
                self.signal(signal.Signals(self.asked))
            if failed_at is None and any(process.poll() for process in self.started):
                failed_at = now
            if failed_at is not None and now - failed_at > self.patience_s:
                self.signal(signal.SIGKILL)
            time.sleep(POLL_S)
        codes = [process.wait() for process in self.started]
        return code_of(codes) if codes else STOPPED

    def signal(self, number: signal.Signals) -> None:
        """Send it to all that have not ended."""
        for process in self.started:
            process.send_signal(number)


def ignore_signals() -> None:
    """In a process that is about to become another program."""
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)


def accelerate_variables(config_file: str, processes: int) -> dict[str, str]:
    """What `accelerate launch` would put into the environment of every rank."""
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils.launch import (
        prepare_deepspeed_cmd_env,
        prepare_multi_gpu_env,
        prepare_simple_launcher_cmd_env,
    )

    # Port 0 keeps Accelerate from asking whether another is free: rank 0 finds out when it listens.
    layout = ["--num_machines", "1", "--num_processes", str(processes), "--main_process_port", "0"]
    arguments = launch_command_parser().parse_args(
        ["--config_file", config_file, *layout, str(RUN)]
    )
    arguments, defaults, _ = _validate_launch_command(arguments)
    if arguments.use_deepspeed:
        fields = ",".join(defaults.deepspeed_config)
        arguments.deepspeed_fields_from_accelerate_config = fields
        return prepare_deepspeed_cmd_env(arguments)[1]
    if arguments.multi_gpu or arguments.use_fsdp:
        return prepare_multi_gpu_env(arguments)
    return prepare_simple_launcher_cmd_env(arguments)[1]


def places(node: int, nodes: int, processes: int) -> Iterator[dict[str, str]]:
    """The place of each rank of a node among all."""
    for local in range(processes):
        yield {
            "RANK": str(node * processes + local),
            "LOCAL_RANK": str(local),
            "WORLD_SIZE": str(nodes * processes),
            "LOCAL_WORLD_SIZE": str(processes),
        }


def code_of(codes: Sequence[int]) -> int:
    """0 if all have it; else that of a rank that stopped as asked, or the first that says why."""
    failed = [code for code in codes if code]
    spoken = [code for code in failed if code > 0]
    if STOPPED in failed:
        return STOPPED
    return spoken[0] if spoken else 128 - failed[0] if failed else 0


if __name__ == "__main__":
    sys.exit(main())
