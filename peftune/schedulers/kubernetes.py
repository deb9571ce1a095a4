"""Manifests for Kubernetes: a JobSet, or a PyTorchJob of the training operator.

Field names are those of the published definitions: jobset.x-k8s.io/v1alpha2 and kubeflow.org/v1. Recipe
and launcher's file go along in a ConfigMap; model, data, tokens and output are on volumes that the
site's file names. A pod is a node.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import yaml

from peftune.errors import Interrupted, LaunchError
from peftune.schedulers.client import client_says
from peftune.schedulers.job import Job
from peftune.schedulers.section import KubernetesSection

Tree = dict[str, Any]
FILES, RECIPE, LAUNCHER = "/etc/peftune", "recipe.yaml", "launcher.yaml"
PORT = 23456
"""Where the training operator lets rank 0 listen."""
LONGEST_NAME = 40
"""Names of pods are the job's with some more, and may have 63 characters."""
RESTARTS = "metadata.annotations['jobset.sigs.k8s.io/restart-attempt']"


@dataclass(frozen=True)
class Manifest:
    """One of the two kinds."""

    kind: Literal["JobSet", "PyTorchJob"]

    def text(self, job: Job) -> str:
        """All objects as YAML. Raises LaunchError for what Kubernetes cannot be asked for."""
        made = job_set(job) if self.kind == "JobSet" else pytorch_job(job)
        return yaml.safe_dump_all([config_map(job), made], sort_keys=False)

    def submit(self, job: Job) -> str:
        """Create them by `kubectl`; returns what it says. Raises LaunchError."""
        return client_says(["kubectl", "create", "-f", "-"], self.text(job))


JOB_SET, PYTORCH_JOB = Manifest("JobSet"), Manifest("PyTorchJob")


def section_of(job: Job) -> KubernetesSection:
    if job.site.kubernetes is None:
        raise LaunchError(
            "--on kubernetes: the site's file needs a section kubernetes: with an image, e.g. "
            "kubernetes: {image: registry.example/peftune:1}; give it with --site."
        )
    if len(job.points) > 1:
        raise LaunchError("--sweep: on Kubernetes one run at a time; arrays are SLURM's.")
    return job.site.kubernetes


def name_of(job: Job) -> str:
    """The output folder's name as the API server takes it."""
    name = re.sub(r"[^a-z0-9]+", "-", job.name.lower()).strip("-")
    return f"peftune-{name}"[:LONGEST_NAME].strip("-")


def metadata(job: Job) -> Tree:
    return {"name": name_of(job), "namespace": section_of(job).namespace}


def config_map(job: Job) -> Tree:
    """Recipe and launcher's file as they are here."""
    files = {RECIPE: job.recipe_path, LAUNCHER: job.launcher.path}
    data = {name: path.read_text(encoding="utf-8") for name, path in files.items()}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata(job), "data": data}


def job_set(job: Job) -> Tree:
    """Tokens first, then the ranks. A run that saved and stopped starts again, whatever it has cost
    before; another failure ends it unless `--restarts` allows some."""
    name, limits = name_of(job), job.limits
    address = f"{name}-train-0-0.{name}"
    train = {
        **_indexed(job.nodes),
        "podFailurePolicy": {"rules": [_stopped_as_asked("train"), _evicted()]},
        "template": pod(job, "train", node_command(job, "JOB_COMPLETION_INDEX"), address),
    }
    if limits.minutes:
        train["activeDeadlineSeconds"] = 60 * limits.minutes
    prepare = {
        **_indexed(1),
        "template": pod(job, "prepare", prepare_command(job), address, gpus=False),
    }
    again = {
        "name": "saved_and_stopped",
        "action": "RestartJobSetAndIgnoreMaxRestarts",
        "onJobFailureReasons": ["PodFailurePolicy"],
        "targetReplicatedJobs": ["train"],
    }
    after = [{"name": "prepare", "status": "Complete"}]
    jobs = [
        {"name": "prepare", "replicas": 1, "template": {"spec": prepare}},
        {"name": "train", "replicas": 1, "dependsOn": after, "template": {"spec": train}},
    ]
    spec = {
        "failurePolicy": {"maxRestarts": limits.restarts or 0, "rules": [again]},
        "network": {"enableDNSHostnames": True},
        "replicatedJobs": jobs,
    }
    kind = {"apiVersion": "jobset.x-k8s.io/v1alpha2", "kind": "JobSet"}
    return {**kind, "metadata": metadata(job), "spec": spec}


def _indexed(pods: int) -> Tree:
    """A Job whose pods all have to end well, at the first try."""
    return {
        "parallelism": pods,
        "completions": pods,
        "completionMode": "Indexed",
        "backoffLimit": 0,
    }


def _stopped_as_asked(container: str) -> Tree:
    codes = {"containerName": container, "operator": "In", "values": [Interrupted.exit_code]}
    return {"action": "FailJob", "onExitCodes": codes}


def _evicted() -> Tree:
    """A node that was drained or lost."""
    condition = {"type": "DisruptionTarget", "status": "True"}
    return {"action": "FailJob", "onPodConditions": [condition]}


def pytorch_job(job: Job) -> Tree:
    """The operator starts pods again by themselves and knows no order of jobs: each pod sees to the
    tokens first, and the run always goes on where it was."""
    command = [*node_command(job, "RANK"), "resume=auto"]
    template = pod(job, "pytorch", command, address=None)
    prepare = container(job, "prepare", prepare_command(job), None, gpus=False)
    template["spec"]["initContainers"] = [prepare]
    # The operator writes its own.
    del template["spec"]["restartPolicy"]

    def replicas(count: int) -> Tree:
        return {"replicas": count, "restartPolicy": "OnFailure", "template": template}

    specs = {"Master": replicas(1)}
    if job.nodes > 1:
        specs["Worker"] = replicas(job.nodes - 1)
    policy: Tree = {"cleanPodPolicy": "Running"}
    if job.limits.restarts is not None:
        policy["backoffLimit"] = job.limits.restarts
    if job.limits.minutes:
        policy["activeDeadlineSeconds"] = 60 * job.limits.minutes
    spec = {"runPolicy": policy, "pytorchReplicaSpecs": specs}
    kind = {"apiVersion": "kubeflow.org/v1", "kind": "PyTorchJob"}
    return {**kind, "metadata": metadata(job), "spec": spec}


def _interpreter(job: Job) -> list[str]:
    return [job.site.python or "python", "-P", "-m"]


def prepare_command(job: Job) -> list[str]:
    """As on any other cluster, with the recipe of the ConfigMap."""
    return [*_interpreter(job), "peftune", "prepare", f"{FILES}/{RECIPE}", *job.points[0]]


def node_command(job: Job, rank_variable: str) -> list[str]:
    """As on any other cluster, with both files of the ConfigMap."""
    layout = ["--nodes", str(job.nodes), "--processes", str(job.processes)]
    file = ["--config-file", f"{FILES}/{LAUNCHER}"]
    place = ["--node-rank-from", rank_variable, f"{FILES}/{RECIPE}"]
    return [*_interpreter(job), "peftune.node", *file, *layout, *place, *job.points[0]]


def pod(
    job: Job, name: str, command: Sequence[str], address: str | None, gpus: bool = True
) -> Tree:
    """Pod template with one container."""
    section = section_of(job)
    claims = [
        {"name": f"volume-{index}", "persistentVolumeClaim": {"claimName": volume.claim}}
        for index, volume in enumerate(section.volumes)
    ]
    # Ranks of a pod exchange tensors in shared memory, of which a pod has 64 MB by itself.
    shared = {"name": "shared-memory", "emptyDir": {"medium": "Memory"}}
    files = {"name": "files", "configMap": {"name": name_of(job)}}
    spec = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": job.limits.grace_s,
        "containers": [container(job, name, command, address, gpus)],
        "volumes": [files, shared, *claims],
    }
    return {"spec": spec}


def container(job: Job, name: str, command: Sequence[str], address: str | None, gpus: bool) -> Tree:
    """What runs in a pod. Without an address, whoever makes the pod gives one."""
    section = section_of(job)
    mounts = [
        {"name": "files", "mountPath": FILES},
        {"name": "shared-memory", "mountPath": "/dev/shm"},
    ]
    mounts += [
        {"name": f"volume-{index}", "mountPath": volume.path}
        for index, volume in enumerate(section.volumes)
    ]
    wanted: Tree = {section.gpu: job.gpus_per_node} if gpus and job.gpus_per_node else {}
    wanted |= {"memory": section.memory} if section.memory else {}
    wanted |= {"cpu": job.site.cpus_per_node} if job.site.cpus_per_node else {}
    return {
        "name": name,
        "image": section.image,
        "command": list(command),
        "env": _environment(job, address),
        "resources": {"limits": wanted},
        "volumeMounts": mounts,
    }


def _environment(job: Job, address: str | None) -> list[Tree]:
    values = dict(job.variables)
    if address:
        values |= {"MASTER_ADDR": address, "MASTER_PORT": str(PORT)}
        values |= {"PEFTUNE_JOB": f"jobset-{section_of(job).namespace}-{name_of(job)}"}
    found: list[Tree] = [{"name": name, "value": value} for name, value in values.items()]
    if address:
        source = {"fieldRef": {"fieldPath": RESTARTS}}
        found.append({"name": "PEFTUNE_RESTARTS", "valueFrom": source})
    return found
