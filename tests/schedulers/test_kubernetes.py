"""The manifests, held against the fields of the published definitions as far as they use them.

The models below repeat names and types of jobset.x-k8s.io/v1alpha2, kubeflow.org/v1, batch/v1 and v1, and
refuse all others. No API server has seen a manifest yet.
"""

from typing import Any, Literal

import pytest
import yaml
from pydantic import BaseModel, ConfigDict, Field

from peftune.errors import LaunchError
from peftune.schedulers.job import Job
from peftune.schedulers.kubernetes import JOB_SET, PYTORCH_JOB, Manifest
from tests.conftest import REPOSITORY
from tests.schedulers.conftest import Site

GPUS = REPOSITORY / "accelerate_configs" / "ddp_2x8.yaml"
SITE = """\
cache: /shared/tokens
kubernetes:
  image: registry.example/peftune:1
  namespace: research
  memory: 64Gi
  volumes: [{claim: shared, path: /shared}]
"""
Label = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"


class Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Metadata(Closed):
    name: str = Field(pattern=Label, max_length=50)
    namespace: str = Field(pattern=Label)


class FieldRef(Closed):
    fieldPath: str


class Source(Closed):
    fieldRef: FieldRef


class Variable(Closed):
    name: str
    value: str | None = None
    valueFrom: Source | None = None


class Mount(Closed):
    name: str
    mountPath: str


class Resources(Closed):
    limits: dict[str, str | int]


class Container(Closed):
    name: str = Field(pattern=Label)
    image: str
    command: list[str]
    env: list[Variable]
    resources: Resources
    volumeMounts: list[Mount]


class Volume(Closed):
    name: str = Field(pattern=Label)
    configMap: dict[Literal["name"], str] | None = None
    emptyDir: dict[Literal["medium"], Literal["Memory"]] | None = None
    persistentVolumeClaim: dict[Literal["claimName"], str] | None = None


class PodSpec(Closed):
    restartPolicy: Literal["Never"] | None = None
    terminationGracePeriodSeconds: int
    initContainers: list[Container] = []
    containers: list[Container]
    volumes: list[Volume]


class PodTemplate(Closed):
    spec: PodSpec


class OnExitCodes(Closed):
    containerName: str
    operator: Literal["In"]
    values: list[int]


class PodCondition(Closed):
    type: Literal["DisruptionTarget"]
    status: Literal["True"]


class PodRule(Closed):
    action: Literal["FailJob"]
    onExitCodes: OnExitCodes | None = None
    onPodConditions: list[PodCondition] | None = None


class PodFailurePolicy(Closed):
    rules: list[PodRule]


class JobSpec(Closed):
    parallelism: int
    completions: int
    completionMode: Literal["Indexed"]
    backoffLimit: int
    activeDeadlineSeconds: int | None = None
    podFailurePolicy: PodFailurePolicy | None = None
    template: PodTemplate


class JobTemplate(Closed):
    spec: JobSpec


class DependsOn(Closed):
    name: str
    status: Literal["Ready", "Complete"]


class ReplicatedJob(Closed):
    name: str = Field(pattern=Label)
    replicas: int
    dependsOn: list[DependsOn] = Field([], max_length=1)
    template: JobTemplate


class Rule(Closed):
    name: str = Field(pattern=r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$")
    action: Literal["FailJobSet", "RestartJobSet", "RestartJobSetAndIgnoreMaxRestarts"]
    onJobFailureReasons: list[str]
    targetReplicatedJobs: list[str]


class FailurePolicy(Closed):
    maxRestarts: int
    rules: list[Rule]


class Network(Closed):
    enableDNSHostnames: bool


class JobSetSpec(Closed):
    failurePolicy: FailurePolicy
    network: Network
    replicatedJobs: list[ReplicatedJob]


class JobSet(Closed):
    apiVersion: Literal["jobset.x-k8s.io/v1alpha2"]
    kind: Literal["JobSet"]
    metadata: Metadata
    spec: JobSetSpec


class Replicas(Closed):
    replicas: int
    restartPolicy: Literal["Always", "OnFailure", "Never", "ExitCode"]
    template: PodTemplate


class RunPolicy(Closed):
    cleanPodPolicy: Literal["All", "Running", "None"]
    backoffLimit: int | None = None
    activeDeadlineSeconds: int | None = None


class PyTorchJobSpec(Closed):
    runPolicy: RunPolicy
    pytorchReplicaSpecs: dict[Literal["Master", "Worker"], Replicas]


class PyTorchJob(Closed):
    apiVersion: Literal["kubeflow.org/v1"]
    kind: Literal["PyTorchJob"]
    metadata: Metadata
    spec: PyTorchJobSpec


class ConfigMap(Closed):
    apiVersion: Literal["v1"]
    kind: Literal["ConfigMap"]
    metadata: Metadata
    data: dict[str, str]


def read(manifest: Manifest, job: Job) -> tuple[ConfigMap, Any]:
    """Both objects of a manifest, every field of which must be a published one."""
    files, made = yaml.safe_load_all(manifest.text(job))
    kind = JobSet if manifest is JOB_SET else PyTorchJob
    return ConfigMap.model_validate(files), kind.model_validate(made)


def variables(container: Container) -> dict[str, str | None]:
    return {variable.name: variable.value for variable in container.env}


def test_a_job_set_prepares_once_and_then_trains_on_every_node(site: Site) -> None:
    job = site.job("seed=5", "output_dir=/shared/My_Run", site=SITE, minutes=90, grace_s=45)
    files, made = read(JOB_SET, job)
    assert files.data == {
        "recipe.yaml": site.recipe.read_text(),
        "launcher.yaml": job.launcher.path.read_text(),
    }
    prepare, train = made.spec.replicatedJobs
    assert train.dependsOn == [DependsOn(name="prepare", status="Complete")]
    assert (prepare.template.spec.completions, train.template.spec.completions) == (1, 2)
    assert train.template.spec.activeDeadlineSeconds == 5400
    assert train.template.spec.template.spec.terminationGracePeriodSeconds == 45
    (container,) = train.template.spec.template.spec.containers
    assert container.command[-2:] == ["seed=5", "output_dir=/shared/My_Run"]
    assert container.command[container.command.index("--node-rank-from") + 1] == (
        "JOB_COMPLETION_INDEX"
    )
    found = variables(container)
    # <jobset>-<replicated job>-<job>-<pod>.<subdomain>, and the subdomain is the job set's name.
    assert found["MASTER_ADDR"] == "peftune-my-run-train-0-0.peftune-my-run"
    assert found["PEFTUNE_CACHE"] == "/shared/tokens"
    assert made.metadata.name == "peftune-my-run"


def test_only_the_training_asks_for_gpus(site: Site) -> None:
    more = ["train.per_device_train_batch_size=1", "train.global_batch_size=16"]
    _, made = read(JOB_SET, site.job(*more, site=SITE, launcher=GPUS))
    limits = [
        one.template.spec.template.spec.containers[0].resources.limits
        for one in made.spec.replicatedJobs
    ]
    assert limits == [{"memory": "64Gi"}, {"nvidia.com/gpu": 8, "memory": "64Gi"}]


def test_a_run_that_saved_and_stopped_starts_again_and_no_other(site: Site) -> None:
    _, made = read(JOB_SET, site.job(site=SITE))
    _, train = made.spec.replicatedJobs
    stopped, evicted = train.template.spec.podFailurePolicy.rules
    assert (stopped.onExitCodes.values, stopped.onExitCodes.containerName) == ([75], "train")
    assert evicted.onPodConditions is not None
    (rule,) = made.spec.failurePolicy.rules
    assert rule.action == "RestartJobSetAndIgnoreMaxRestarts"
    assert rule.onJobFailureReasons == ["PodFailurePolicy"]
    assert made.spec.failurePolicy.maxRestarts == 0
    _, allowed = read(JOB_SET, site.job(site=SITE, restarts=3))
    assert allowed.spec.failurePolicy.maxRestarts == 3


def test_every_volume_is_mounted(site: Site) -> None:
    _, made = read(JOB_SET, site.job(site=SITE))
    for one in made.spec.replicatedJobs:
        spec = one.template.spec.template.spec
        mounted = {mount.name: mount.mountPath for mount in spec.containers[0].volumeMounts}
        assert mounted.keys() == {volume.name for volume in spec.volumes}
        assert mounted["volume-0"] == "/shared"


def test_a_pytorch_job_goes_on_by_itself(site: Site) -> None:
    """The operator says the pods' numbers and the first one's address itself."""
    _, made = read(PYTORCH_JOB, site.job(site=SITE, restarts=4))
    specs = made.spec.pytorchReplicaSpecs
    assert {name: one.replicas for name, one in specs.items()} == {"Master": 1, "Worker": 1}
    assert made.spec.runPolicy.backoffLimit == 4
    for one in specs.values():
        (container,) = one.template.spec.containers
        assert container.name == "pytorch"
        assert container.command[-1] == "resume=auto"
        assert "MASTER_ADDR" not in variables(container)
        (prepare,) = one.template.spec.initContainers
        assert prepare.command[3:5] == ["peftune", "prepare"]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({}, "the site's file needs a section kubernetes: with an image"),
        ({"site": SITE, "sweep": ["seed=1,2"]}, "--sweep: on Kubernetes one run at a time"),
    ],
)
def test_what_cannot_be_asked_for(more: dict[str, Any], said: str, site: Site) -> None:
    with pytest.raises(LaunchError, match=said):
        JOB_SET.text(site.job(**more))


def test_it_is_created_by_kubectl(site: Site) -> None:
    kubectl = site.folder / "bin" / "kubectl"
    kubectl.write_text(
        '#!/bin/bash\necho "$*" > "$LOG/kubectl"\ncat > "$LOG/given"\necho created\n'
    )
    kubectl.chmod(0o755)
    job = site.job(site=SITE)
    assert JOB_SET.submit(job) == "created"
    assert site.said("kubectl") == "create -f -\n"
    assert site.said("given") == JOB_SET.text(job)
