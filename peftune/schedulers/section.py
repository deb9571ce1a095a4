"""What a site's file says: everything about a cluster that is the same for all runs on it."""

from typing import Annotated

from pydantic import Field

from peftune.section import Items, Section

# One line without quotes or blanks: it becomes a word of a job script.
Word = Annotated[str, Field(pattern=r"^[A-Za-z0-9_./:@,=+\-%\[\]]+$")]
Line = Annotated[str, Field(pattern=r"^[^\n\r]+$")]
Name = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
# What the API server takes as a name.
Label = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.\-]*[a-z0-9])?$")]


class VolumeSection(Section):
    """A persistent volume claim that every pod mounts."""

    claim: Label
    """Name of the claim."""

    path: Word
    """Where it is mounted; recipe, data, model, cache and output are looked for below it."""


class SlurmSection(Section):
    """Words of `sbatch`."""

    partition: Word | None = None
    """Partition of the training."""

    prepare_partition: Word | None = None
    """Partition of the job that makes the tokens, which needs no GPU; without it `partition`."""

    account: Word | None = None
    """Account that is charged."""

    qos: Word | None = None
    """Quality of service."""

    options: Items[Word] = ()
    """Further options of both jobs as `sbatch` takes them, e.g. `[--exclusive, --constraint=a100]`."""

    step_options: Items[Word] = ()
    """Further options of `srun`, e.g. `[--container-image=nvcr.io/x:1]` for pyxis."""


class KubernetesSection(Section):
    """Where pods come from."""

    image: Word
    """Container image with peftune in it."""

    namespace: Label = "default"
    """Namespace of everything that is made."""

    gpu: Word = "nvidia.com/gpu"
    """Name of the resource that is a GPU."""

    memory: Word | None = None
    """Memory of a pod, e.g. 64Gi."""

    volumes: Items[VolumeSection] = ()
    """Claims that every pod mounts."""


class SiteSection(Section):
    """One cluster."""

    modules: Items[Word] = ()
    """Environment modules to load, e.g. `[cuda/12.8]`."""

    setup: Items[Line] = ()
    """Lines of shell before anything else, e.g. `[source /opt/peftune/bin/activate]`."""

    container: Items[Word] = ()
    """Words before every command, e.g. `[apptainer, exec, --nv, /images/peftune.sif]`."""

    python: Word | None = None
    """The interpreter that has peftune, as the nodes see it; without it the one that runs `launch`."""

    environment: dict[Name, Line] = Field(default_factory=dict)
    """Variables of every process, e.g. `{NCCL_SOCKET_IFNAME: ib0}`."""

    cache: Line | None = None
    """Folder that all nodes see, for tokens that are made once (`PEFTUNE_CACHE`)."""

    gpus_per_node: int | None = Field(default=None, ge=1)
    """GPUs of a node; without it as many as the launcher's file starts processes on one."""

    cpus_per_node: int | None = Field(default=None, ge=1)
    """Cores that a node's processes share."""

    slurm: SlurmSection = SlurmSection()
    kubernetes: KubernetesSection | None = None
