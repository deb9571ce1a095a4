"""Joining and leaving the process group."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.launching import environment, free_port

# Two ranks build an engine inside the block; `ending` says how the block is left.
PROGRAM = """
import gc, sys
import torch
from torch.nn.parallel import DistributedDataParallel
from peftune.engines.launch import Launch
from peftune.engines.ranks import joined_ranks
from peftune.errors import TrainingError

def alive():
    return sum(type(thing) is DistributedDataParallel for thing in gc.get_objects())

def work(ranks, ending):
    model = DistributedDataParallel(torch.nn.Linear(2, 2))
    model(torch.ones(1, 2)).sum().backward()
    gathered = ranks.gather_objects([ranks.rank])
    assert gathered == [0, 1], gathered
    assert alive() == 1
    if ending == "error":
        raise TrainingError("step 1: the loss is nan.")

destroy = torch.distributed.destroy_process_group

def checked_destroy(group=None):
    print("engines alive:", alive())
    destroy(group)

torch.distributed.destroy_process_group = checked_destroy
launch = Launch("ddp", 2, int(sys.argv[1]), use_cpu=True, wants_gpu=False, offload=False)
try:
    with joined_ranks(launch, (), ".") as ranks:
        work(ranks, sys.argv[2])
except TrainingError:
    print("stopped")
"""

# As `accelerate_configs/cpu_ddp.yaml` has it: no word of the CPU but that there are no GPUs.
WAITING = """
import sys
from pathlib import Path
from peftune.engines.launch import Launch
from peftune.engines.ranks import joined_ranks

launch = Launch("ddp", 2, int(sys.argv[1]), use_cpu=True, wants_gpu=False, offload=False)
asked, done = Path("asked"), Path("done")
with joined_ranks(launch, (), ".") as ranks:
    if ranks.is_main:
        while not asked.exists():
            pass
        done.write_text("before the others go on")
    else:
        asked.write_text("about to wait")
    ranks.wait()
    assert done.exists()
"""


def start(program: str, rank: int, folder: Path, port: str, *more: str) -> subprocess.Popen[str]:
    places = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    hidden = {"CUDA_VISIBLE_DEVICES": "-1,-1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return subprocess.Popen(
        [sys.executable, "-c", program, str(rank), *more],
        cwd=folder,
        env={**environment(), **places, **hidden},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_rank_waits_for_the_others(tmp_path: Path) -> None:
    port = str(free_port())
    ranks = [start(WAITING, rank, tmp_path, port) for rank in (0, 1)]
    for process in ranks:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors[-4000:]


@pytest.mark.parametrize("ending", [pytest.param("end", marks=pytest.mark.thorough), "error"])
def test_the_group_outlives_the_engine(ending: str, tmp_path: Path) -> None:
    """An engine that goes after its group can wait forever for a thread of the group."""
    port = str(free_port())
    ranks = [start(PROGRAM, rank, tmp_path, port, ending) for rank in (0, 1)]
    for process in ranks:
        output, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors[-4000:]
        assert "engines alive: 0" in output
        assert ("stopped" in output) == (ending == "error")
