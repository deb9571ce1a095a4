"""Job scripts for SLURM: one that makes the tokens, and one that trains when that has ended well.

The script of the training starts one task on each node, which starts the node's ranks. It passes on the
signal that comes before the end of its time, and queues itself again when the run has saved and stopped
(exit code 75). What SLURM queues again by itself, as after a lost node, goes on in the same way.
"""

import shlex
from collections.abc import Iterator, Sequence

from peftune.errors import Interrupted
from peftune.records import storing, write_text
from peftune.schedulers.client import client_says
from peftune.schedulers.job import Job

FIRST_PORT, PORTS = 10_000, 20_000
"""Below the ports that systems hand out by themselves; two jobs on one node have different ones."""
REQUEUES = 100
"""How often a job that saved and stopped is queued again where nobody says."""
AFTER = "--dependency=afterok:{prepare} --kill-on-invalid-dep=yes"

PLACE = f"""\
export PEFTUNE_JOB="slurm-$SLURM_JOB_ID" PEFTUNE_RESTARTS="${{SLURM_RESTART_COUNT:-0}}"
export MASTER_ADDR="$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)"
export MASTER_PORT="$(({FIRST_PORT} + SLURM_JOB_ID % {PORTS}))\""""

WAIT = """\
step=$!
# srun hands USR1 on; of TERM it would make a kill.
trap 'kill -USR1 "$step"' USR1 TERM
while wait "$step"; code=$?; kill -0 "$step" 2>/dev/null; do :; done
wait "$step"; code=$?
if [ "$code" -eq {interrupted} ] && [ "$PEFTUNE_RESTARTS" -lt {restarts} ]; then
    echo "peftune: saved and stopped; job $SLURM_JOB_ID is queued again"
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
"""


def prepare_script(job: Job) -> str:
    """The job that makes the tokens of every run, on one node and without a GPU."""
    slurm = job.site.slurm
    partition = slurm.prepare_partition or slurm.partition
    options = [f"--job-name={job.name}-prepare", "--nodes=1", "--ntasks=1"]
    options += _shared_options(job, "prepare", partition)
    commands = [f"{shlex.join(job.prepare_command(point))} || exit" for point in job.points]
    return "\n".join([*_head(job, options), *commands, ""])


def train_script(job: Job) -> str:
    """The job that trains, and goes on where it was when it is queued again."""
    limits, slurm = job.limits, job.site.slurm
    options = [f"--job-name={job.name}", f"--nodes={job.nodes}", "--ntasks-per-node=1"]
    options += [f"--gpus-per-node={job.gpus_per_node}"] if job.gpus_per_node else []
    options += [f"--time={limits.minutes}"] if limits.minutes else []
    options += [f"--signal=B:USR1@{limits.grace_s}", "--requeue"]
    options += [f"--array=0-{len(job.points) - 1}"] if len(job.points) > 1 else []
    options += _shared_options(job, "train", slurm.partition)
    node = [*job.node_command(), "--node-rank-from", "SLURM_NODEID", str(job.recipe_path)]
    step = shlex.join(["srun", *slurm.step_options, *node])
    restarts = REQUEUES if limits.restarts is None else limits.restarts
    wait = WAIT.format(interrupted=Interrupted.exit_code, restarts=restarts)
    return "\n".join([*_head(job, options), PLACE, *_point(job), f'{step} "${{point[@]}}" &', wait])


def _head(job: Job, options: Sequence[str]) -> Iterator[str]:
    """Options, then what the site wants before anything else."""
    yield "#!/bin/bash"
    yield from (f"#SBATCH {option}" for option in options)
    if job.site.modules:
        yield f"module load {shlex.join(job.site.modules)}"
    yield from job.site.setup
    for name, value in job.variables.items():
        yield f"export {name}={shlex.quote(value)}"


def _shared_options(job: Job, stage: str, partition: str | None) -> list[str]:
    slurm, cores = job.site.slurm, job.site.cpus_per_node
    # A name of an output may hold blanks; %j is the number of the job, also in an array.
    options = [f"--output={shlex.quote(f'{job.folder}/{stage}-%j.log')}", "--open-mode=append"]
    options += [f"--cpus-per-task={cores}"] if cores else []
    named = {"partition": partition, "account": slurm.account, "qos": slurm.qos}
    options += [f"--{name}={value}" for name, value in named.items() if value]
    return [*options, *slurm.options]


def _point(job: Job) -> Iterator[str]:
    """The overrides of the run, by its number in the array where there are several."""
    words = [f"point=({shlex.join(point)})" for point in job.points]
    if len(words) == 1:
        yield words[0]
        return
    yield 'case "$SLURM_ARRAY_TASK_ID" in'
    yield from (f"{index}) {word} ;;" for index, word in enumerate(words))
    yield "esac"


def text(job: Job) -> str:
    """Both scripts, each below the command that submits it."""
    after = AFTER.format(prepare="$PREPARE")
    return (
        f"# PREPARE=$(sbatch --parsable {shlex.quote(str(job.folder / 'prepare.sbatch'))})\n"
        f"{prepare_script(job)}\n"
        f"# sbatch --parsable {after} {shlex.quote(str(job.folder / 'train.sbatch'))}\n"
        f"{train_script(job)}"
    )


def submit(job: Job) -> str:
    """Queue both jobs by `sbatch`; returns what to tell the user. Raises LaunchError."""
    with storing(job.folder, 0):
        job.folder.mkdir(parents=True, exist_ok=True)
    prepare = _sbatch(job, "prepare", prepare_script(job), [])
    train = _sbatch(job, "train", train_script(job), AFTER.format(prepare=prepare).split())
    return f"job {prepare} prepares, job {train} trains after it; scripts and logs: {job.folder}"


def _sbatch(job: Job, stage: str, script: str, options: Sequence[str]) -> str:
    """The number of the job."""
    file = job.folder / f"{stage}.sbatch"
    write_text(file, script)
    return client_says(["sbatch", "--parsable", *options, str(file)]).partition(";")[0]
