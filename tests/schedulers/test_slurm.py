"""The job scripts are run, by commands that stand for SLURM's."""

import re
import signal
from pathlib import Path

import pytest

from peftune.errors import LaunchError, RecipeError
from peftune.schedulers.slurm import prepare_script, submit, text, train_script
from tests.conftest import REPOSITORY
from tests.schedulers.conftest import Site

GPUS = REPOSITORY / "accelerate_configs" / "ddp_2x8.yaml"


def options(script: str) -> dict[str, str]:
    """What `sbatch` reads from the script: its first lines."""
    found = re.findall(r"^#SBATCH --([a-z-]+)(?:=(.*))?$", script, re.MULTILINE)
    assert script.startswith("#!/bin/bash\n#SBATCH ")
    return dict(found)


def wait_for(site: Site, *names: str) -> None:
    while not all((site.folder / name).exists() for name in names):
        pass


def test_the_layout_is_that_of_the_launcher_and_the_command_line(site: Site) -> None:
    found = options(train_script(site.job(minutes=90, grace_s=45)))
    asked = {name: found[name] for name in ("nodes", "ntasks-per-node", "time", "signal")}
    assert asked == {"nodes": "2", "ntasks-per-node": "1", "time": "90", "signal": "B:USR1@45"}
    assert found["open-mode"] == "append" and "requeue" in found
    assert not {"gpus-per-node", "array", "partition"} & found.keys()


def test_gpus_are_asked_for_where_the_launcher_wants_them_and_never_to_prepare(site: Site) -> None:
    more = ["train.per_device_train_batch_size=1", "train.global_batch_size=16"]
    job = site.job(*more, launcher=GPUS, site="slurm: {partition: gpu, prepare_partition: cpu}\n")
    train, prepare = options(train_script(job)), options(prepare_script(job))
    assert (train["gpus-per-node"], train["partition"]) == ("8", "gpu")
    assert (prepare["nodes"], prepare["partition"]) == ("1", "cpu")
    assert "gpus-per-node" not in prepare


def test_each_node_starts_its_ranks_of_the_same_group(site: Site) -> None:
    assert site.run(train_script(site.job("seed=5"))) == 0
    assert site.arguments(0) == site.arguments(1)
    arguments = site.arguments(0)
    assert arguments[:3] == ["-P", "-m", "peftune.node"]
    assert arguments[-2:] == [str(site.recipe), "seed=5"]
    named = dict(zip(arguments[3:-2:2], arguments[4:-2:2], strict=True))
    assert (named["--nodes"], named["--processes"]) == ("2", "1")
    for node in (0, 1):
        found = site.environment(node)
        assert found[named["--node-rank-from"]] == str(node)
        assert (found["MASTER_ADDR"], found["MASTER_PORT"]) == ("127.0.0.1", "10041")
        assert (found["PEFTUNE_JOB"], found["PEFTUNE_RESTARTS"]) == ("slurm-41", "0")


@pytest.mark.parametrize(
    ("codes", "restarts", "code", "again"),
    [
        ((0, 0), 0, 0, False),
        ((75, 75), 0, 75, True),
        ((75, 75), 99, 75, True),
        ((75, 75), 100, 75, False),
        ((1, 1), 0, 1, False),
        ((2, 0), 0, 2, False),
    ],
)
def test_only_a_run_that_saved_and_stopped_is_queued_again(
    codes: tuple[int, int], restarts: int, code: int, again: bool, site: Site
) -> None:
    site.ends_with(codes)
    script = train_script(site.job())
    assert site.run(script, {"SLURM_RESTART_COUNT": str(restarts)}) == code
    assert site.said("scontrol") == ("requeue 41\n" if again else "")
    assert site.environment(0)["PEFTUNE_RESTARTS"] == str(restarts)


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_the_signal_before_the_time_limit_reaches_every_node(
    number: signal.Signals, site: Site
) -> None:
    (site.folder / "long").touch()
    started = site.start(train_script(site.job()))
    wait_for(site, "began-0", "began-1")
    started.send_signal(number)
    started.communicate(timeout=60)
    assert started.returncode == 75
    assert site.said("told") == "told\ntold\n"
    assert site.said("scontrol") == "requeue 41\n"


def test_the_tokens_are_made_by_a_job_that_the_training_waits_for(site: Site) -> None:
    job = site.job("seed=5")
    assert submit(job) == f"job 41 prepares, job 42 trains after it; scripts and logs: {job.folder}"
    prepare, train = site.said("sbatch").splitlines()
    assert prepare == f"--parsable {job.folder}/prepare.sbatch"
    assert "--dependency=afterok:41 --kill-on-invalid-dep=yes" in train
    assert train.endswith(f"{job.folder}/train.sbatch")
    assert site.run((job.folder / "prepare.sbatch").read_text()) == 0
    said = ["-P", "-m", "peftune", "prepare", str(site.recipe), "seed=5"]
    assert site.arguments("none") == said


def test_a_preparation_that_fails_ends_with_its_code(site: Site) -> None:
    (site.folder / "code-none").write_text("2")
    assert site.run(prepare_script(site.job())) == 2


def test_a_dry_run_prints_what_would_be_submitted(site: Site) -> None:
    job = site.job()
    printed = text(job)
    assert site.said("sbatch") == "" and not job.folder.exists()
    submit(job)
    for stage in ("prepare", "train"):
        assert (job.folder / f"{stage}.sbatch").read_text() in printed


def test_words_with_blanks_quotes_and_dollars_arrive_whole(site: Site) -> None:
    odd = """output_dir=/tmp/it's $HOME "here" """
    assert site.run(train_script(site.job(odd))) == 0
    assert site.arguments(1)[-1] == odd


def test_a_sweep_is_an_array_in_which_each_run_has_its_folder(site: Site) -> None:
    job = site.job(sweep=["train.learning_rate=1e-3,2e-3", "seed=1,2"])
    script = train_script(job)
    assert options(script)["array"] == "0-3"
    seen = set()
    for index in range(4):
        assert site.run(script, {"SLURM_ARRAY_TASK_ID": str(index)}) == 0
        rate, seed, folder = site.arguments(0)[-3:]
        assert folder == f"output_dir={job.output_dir}-{index}"
        seen.add((rate, seed))
    rates = {f"train.learning_rate={rate}" for rate in ("1e-3", "2e-3")}
    assert seen == {(rate, f"seed={seed}") for rate in rates for seed in (1, 2)}
    assert site.run(prepare_script(job)) == 0
    assert site.arguments("none")[-1] == f"output_dir={job.output_dir}-3"


def test_a_point_of_a_sweep_that_cannot_work_is_refused_before_anything_is_queued(
    site: Site,
) -> None:
    with pytest.raises(RecipeError, match="is not a multiple of"):
        site.job(sweep=["train.global_batch_size=8,9"])
    with pytest.raises(LaunchError, match="--sweep seed: write key=value,value"):
        site.job(sweep=["seed"])


def test_what_a_site_wants_stands_before_everything_else(site: Site) -> None:
    text = (
        "modules: [cuda/12.8]\nsetup: [export SET_UP=yes]\ncache: /shared/tokens\n"
        "environment: {NCCL_SOCKET_IFNAME: ib0}\ncpus_per_node: 16\n"
        "slurm: {account: me, options: [--exclusive]}\n"
    )
    script = train_script(site.job(site=text))
    assert site.run(f"module() {{ echo \"$*\" > '{site.folder}/modules'; }}\n{script}") == 0
    assert site.said("modules") == "load cuda/12.8\n"
    found, asked = site.environment(1), options(script)
    names = ("SET_UP", "PEFTUNE_CACHE", "NCCL_SOCKET_IFNAME")
    assert [found[name] for name in names] == ["yes", "/shared/tokens", "ib0"]
    assert (asked["cpus-per-task"], asked["account"], asked["exclusive"]) == ("16", "me", "")


def test_a_container_stands_before_every_command(site: Site) -> None:
    wrap = site.folder / "bin" / "wrap"
    wrap.write_text('#!/bin/bash\necho "$2" >> "$LOG/wrapped"\nshift 2\nexec "$@"\n')
    wrap.chmod(0o755)
    job = site.job(site="container: [wrap, exec, image.sif]\n".replace("wrap, exec", "wrap, -i"))
    assert site.run(train_script(job)) == site.run(prepare_script(job)) == 0
    assert site.said("wrapped") == "image.sif\n" * 3


def test_without_sbatch_it_says_where_to_launch(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(site.folder))
    with pytest.raises(LaunchError, match="no sbatch on this machine"):
        submit(site.job())


def test_what_sbatch_refuses_is_said(site: Site) -> None:
    (site.folder / "bin" / "sbatch").write_text("#!/bin/bash\necho no such account >&2\nexit 1\n")
    with pytest.raises(LaunchError, match="sbatch says: no such account"):
        submit(site.job())


def test_jobs_leave_the_folder_of_the_run_alone(site: Site) -> None:
    """A run begins with an empty folder, so scripts and logs are beside it."""
    job = site.job()
    submit(job)
    assert not Path(job.output_dir).exists()
    assert options(train_script(job))["output"] == f"{job.output_dir}.jobs/train-%j.log"
