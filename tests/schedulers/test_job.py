"""Site files, launcher's files and layouts: what is wrong is said before anything is queued."""

import json
from pathlib import Path
from typing import Any

import pytest

from peftune.compatibility import check_output_folder
from peftune.engines.launch import Launch
from peftune.engines.launcher_file import read_launcher_file
from peftune.errors import LaunchError, PeftuneError, RecipeError
from peftune.recipe import Recipe
from peftune.schedulers.job import read_site
from peftune.schedulers.local import submit
from tests.conftest import REPOSITORY
from tests.schedulers.conftest import Site

FILES = sorted((REPOSITORY / "accelerate_configs").glob("*.yaml"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("module: [cuda]", "module: is no key of a site's file. Did you mean modules?"),
        ("slurm: {partiton: gpu}", "slurm.partiton: is no key of a site's file."),
        ("gpus_per_node: 0", "gpus_per_node: input should be greater than or equal to 1."),
        ('modules: ["a; rm -rf /"]', "modules.0: string should match pattern"),
        ('setup: ["one\\ntwo"]', "setup.0: string should match pattern"),
        ("environment: {A-B: c}", "environment.A-B.[key]: string should match pattern"),
        ("kubernetes: {namespace: a}", "kubernetes.image: field required."),
    ],
)
def test_a_wrong_site_file_names_the_key(text: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "site.yaml"
    file.write_text(text)
    with pytest.raises(RecipeError) as caught:
        read_site(file)
    assert str(caught.value).startswith(f"{file}: {said}")


def test_a_site_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match=r"--site: .*none.yaml: no such file\."):
        read_site(tmp_path / "none.yaml")


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_shipped_launcher_file_is_read(file: Path) -> None:
    found = read_launcher_file(file)
    assert found.uses_gpus is not file.stem.startswith("cpu")
    engine = next(name for name in ("zero1", "zero2", "zero3", "fsdp2", "") if name in file.stem)
    assert found.engine == (engine or "ddp")
    assert (found.machines, found.processes % found.machines) == (2 if "2x8" in file.stem else 1, 0)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("distributed_type: TPU", "distributed_type is not one of NO, MULTI_GPU, DEEPSPEED, FSDP"),
        ("- a", "distributed_type is not one of"),
        ("a: b: c", "is not YAML"),
        (
            "distributed_type: FSDP\nnum_processes: two",
            "num_processes: 'two' is not a whole number",
        ),
    ],
)
def test_a_file_that_is_no_launcher_file(text: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "launcher.yaml"
    file.write_text(text)
    with pytest.raises(LaunchError) as caught:
        read_launcher_file(file)
    assert said in str(caught.value)


def test_processes_are_those_of_all_nodes(site: Site) -> None:
    """As Accelerate counts them: two of `cpu_ddp.yaml` are one on each of two nodes."""
    assert (site.job().nodes, site.job().processes) == (2, 1)
    assert site.job(nodes=1).processes == 2
    with pytest.raises(
        LaunchError, match="3 nodes cannot share 2 processes; give --processes a mul"
    ):
        site.job(nodes=3)


def test_the_recipe_is_checked_for_all_ranks(site: Site) -> None:
    with pytest.raises(RecipeError, match=r"3 is not a multiple of 4 \(2 rows per device × 2 dev"):
        site.job("train.global_batch_size=3")


def test_a_run_that_would_be_stopped_as_it_starts_is_refused(site: Site) -> None:
    with pytest.raises(LaunchError, match="--grace: 120 s are not less than --minutes 2"):
        site.job(minutes=2)


def test_the_verb_says_the_layout_and_prints_the_scripts(site: Site) -> None:
    from typer.testing import CliRunner

    from peftune import cli

    done = CliRunner().invoke(
        cli.app, ["launch", str(site.recipe), "--on", "slurm", "--nodes", "2", "--dry-run"]
    )
    assert (done.exit_code, done.stderr.startswith("2 node(s) × 1 CPU rank(s), by ")) == (0, True)
    assert done.stdout.count("#!/bin/bash\n") == 2
    wrong = CliRunner().invoke(cli.app, ["launch", str(site.recipe), "--nodes", "2"])
    assert (wrong.exit_code, wrong.stdout) == (2, "")
    assert "error: --on local: 2 node(s) and 1 run(s) were asked for" in wrong.stderr


def test_here_the_tokens_come_first_and_the_training_only_after_them(site: Site) -> None:
    """The interpreter is the stub, which stands for torch elastic as well."""
    job = site.job(nodes=1, restarts=3)
    assert submit(job) == str(job.output_dir)
    arguments = site.arguments("none")
    assert arguments[:3] == ["-P", "-m", "accelerate.commands.launch"]
    named = dict(zip(arguments[3:-2:2], arguments[4:-2:2], strict=True))
    assert (named["--num_processes"], named["--max_restarts"]) == ("2", "3")
    (site.folder / "code-none").write_text("2")
    with pytest.raises(PeftuneError, match="the run ended with 2"):
        submit(job)
    assert site.arguments("none")[2:4] == ["peftune", "prepare"]


@pytest.mark.parametrize(
    ("began_by", "restarts", "taken"),
    [("slurm-7", 1, True), ("slurm-7", 0, False), ("slurm-8", 1, False), (None, 1, False)],
    ids=["its own", "a first start", "another job's", "nobody's"],
)
def test_a_started_again_job_goes_on_in_its_own_folder_alone(
    began_by: str | None, restarts: int, taken: bool, recipe_tree: dict[str, Any]
) -> None:
    """What another run has left there is never cleared."""
    folder = Path(recipe_tree["output_dir"])
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text("task: summarize\n")
    if began_by is not None:
        (folder / "environment.json").write_text(json.dumps({"started_by": began_by}))
    launch = Launch("ddp", 1, 0, True, False, False, restarts=restarts, job="slurm-7")
    recipe = Recipe.model_validate(recipe_tree)
    if taken:
        check_output_folder(recipe, launch)
    else:
        with pytest.raises(RecipeError, match="holds a run that has not finished"):
            check_output_folder(recipe, launch)
