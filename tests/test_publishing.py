"""A run's adapter and merged model as folders that are given away, and a run made again from its card."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from peftune.cli import app, report_errors, train_recipe
from peftune.engines.launch import read_launch
from peftune.errors import ExportError, HubError, ParityError, RecipeError, ReproductionError
from peftune.export.package import refuse_leaks
from peftune.export.parity import Probe, prove
from peftune.merging import opened_adapter
from peftune.pipeline import evaluate_run
from peftune.publishing import export_run
from peftune.recipe import load_recipe
from peftune.reproducing import compared, read_card, reproduce, verdict
from peftune.sources import source_of_run
from tests.conftest import summary_tree, write_recipe
from tests.hub.conftest import TOKEN, digests, published
from tests.hub.conftest import hub as hub
from tests.hub.server import HubServer

FILES = {"README.md", "generation_config.json", "tokenizer.json", "tokenizer_config.json"}


@pytest.fixture(scope="module")
def finished(
    tmp_path_factory: pytest.TempPathFactory, model_folder: Path, data_folder: Path
) -> Path:
    """A run with adapter and merged model, which tests copy before they change it."""
    folder = tmp_path_factory.mktemp("finished")
    tree = summary_tree(model_folder, data_folder)
    tree |= {"output_dir": str(folder / "run"), "export": {"verify": False}}
    tree["train"]["save_steps"] = 6
    assert report_errors(True, train_recipe, str(write_recipe(folder, tree)), []) == 0
    return folder / "run"


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def give(run: Path, to: Path | str, merged: bool = False) -> list[str]:
    said: list[str] = []
    export_run(run, str(to), merged, False, [], said.append)
    return said


def test_an_adapter_is_given_away(run: Path, model_folder: Path, tmp_path: Path) -> None:
    assert give(run, tmp_path / "out") == [str(tmp_path / "out")]
    out = tmp_path / "out"
    weights = {"adapter_model.safetensors", "adapter_config.json"}
    assert {path.name for path in out.iterdir()} == FILES | weights
    config = json.loads((out / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == model_folder.name
    everything = "".join(path.read_text(errors="replace") for path in out.iterdir())
    assert str(tmp_path) not in everything and str(model_folder.parent) not in everything


def test_a_merged_model_is_given_away(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"was not compared with what was trained"):
        give(run, tmp_path / "out", merged=True)
    report = json.loads((run / "merged" / "merge_report.json").read_text())
    (run / "merged" / "merge_report.json").write_text(json.dumps(report | {"accepted": True}))
    give(run, tmp_path / "out", merged=True)
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES | {
        "config.json",
        "model.safetensors",
    }
    card = (tmp_path / "out" / "README.md").read_text()
    assert yaml.safe_load(card.split("---\n")[1])["library_name"] == "transformers"
    assert 'AutoModelForCausalLM.from_pretrained("path/to/this/folder")' in card
    assert 'TEMPLATE """{{ .Prompt }}\nSummary:"""' in card


def test_what_computes_something_else_is_not_given_away(run: Path, tmp_path: Path) -> None:
    file = run / "adapter_model.safetensors"
    save_file({name: one * 1.5 for name, one in load_file(file).items()}, file)
    with pytest.raises(ParityError, match=r"^the adapter's scores differ by"):
        give(run, tmp_path / "out")
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.partial").exists()


def merged_by_command(run: Path, out: Path, *more: str) -> dict[str, torch.Tensor]:
    result = CliRunner().invoke(app, ["merge", str(run), "--out", str(out), *more])
    assert (result.exit_code, result.stdout) == (0, f"{out}\n"), result.output
    return load_file(out / "model.safetensors")


def test_merging_by_command(run: Path, finished: Path, tmp_path: Path) -> None:
    """A half of an adapter and a half of the same adapter are the adapter."""
    whole = merged_by_command(run, tmp_path / "whole")
    halves = merged_by_command(
        run, tmp_path / "halves", "--also", f"{finished}=0.5", "--weight", "0.5"
    )
    assert whole.keys() == halves.keys()
    for name, one in whole.items():
        torch.testing.assert_close(halves[name], one, rtol=1e-6, atol=1e-7)
    for out in ("whole", "halves"):
        report = json.loads((tmp_path / out / "merge_report.json").read_text())
        assert report["accepted"] is True and report["adapter_parity"]["difference"] < 1e-4
    merged_by_command(run, tmp_path / "bits", "--quantize", "bnb-nf4", "--no-verify")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--quantize", "gptq"], "--quantize: gptq is none of bnb-nf4, bnb-fp4, bnb-int8."),
        (["--dtype", "float32"], "the recipe of its run, which decides --base and --dtype"),
        (["--also", "x"], "--also: x is not FOLDER=WEIGHT"),
        (["--density", "0.5"], "--density: 0.5 is for several adapters; add --also."),
        (["export.merge_base=dequantized"], "dequantized needs a quantized base"),
    ],
)
def test_merges_that_cannot_be(more: list[str], message: str, run: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["merge", str(run), "--out", str(tmp_path / "m"), *more])
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())
    assert not (tmp_path / "m").exists()


def test_a_place_that_is_taken_is_refused_before_anything_is_written(run: Path) -> None:
    taken = run / "merged"
    before = digests(run)
    for more in ([], ["--quantize", "bnb-nf4"]):
        result = CliRunner().invoke(app, ["merge", str(run), "--out", str(taken), *more])
        assert (result.exit_code, digests(run)) == (1, before)
        assert f"{taken} exists; remove it, or give another folder." in result.stderr


def test_bits_that_compute_something_else_are_rejected(run: Path, tmp_path: Path) -> None:
    """As any merge is: out of the way, and nothing that is half done beside it."""
    file = run / "probe.safetensors"
    kept = load_file(file)
    save_file({**kept, "adapted": kept["base"] - 100 * (kept["adapted"] - kept["base"])}, file)
    result = CliRunner().invoke(
        app, ["merge", str(run), "--out", str(tmp_path / "bits"), "--quantize", "bnb-nf4"]
    )
    assert result.exit_code == 1
    assert "The merge is rejected, see" in result.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"run", "bits.rejected"}


def test_the_merged_model_is_measured_on_request(run: Path) -> None:
    recipe = load_recipe(run / "recipe.yaml")
    evaluate_run(recipe, read_launch({}), run, merged=True)
    found = json.loads((run / "merged" / "eval_results.json").read_text())
    before = json.loads((run / "eval_results.json").read_text())
    assert found["adapted"] == before["adapted"] and found["examples"] == before["examples"]
    assert found["merged"]["rougeL"] == before["adapted"]["rougeL"]
    assert found["merged"]["loss"] == pytest.approx(before["adapted"]["loss"], rel=1e-5)
    shutil.rmtree(run / "merged")
    with pytest.raises(RecipeError, match="merged is not there; make it with `peftune merge "):
        evaluate_run(recipe, read_launch({}), run, merged=True)


def test_a_checkpoint_is_an_adapter_that_plain_peft_loads(run: Path) -> None:
    source = source_of_run(load_recipe(run / "recipe.yaml"), run)
    probe = Probe.load(run / "probe.safetensors")
    (parity,) = prove(probe, {opened_adapter(source, run / "checkpoint-6"): 1e-4}, chooses=True)
    assert parity.difference < 1e-5 < parity.adapter_effect


def test_a_folder_that_is_there_is_left_alone(run: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(ExportError, match=r"^--to: .*out exists"):
        give(run, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_folders_and_secrets_of_this_machine_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"from": f"{tmp_path}/base"}))
    with pytest.raises(ExportError, match=rf"^config.json names {tmp_path}, a folder"):
        refuse_leaks(tmp_path, [tmp_path])
    (tmp_path / "config.json").write_text(json.dumps({"key": "hf_abcdefgh"}))
    refuse_leaks(tmp_path, [tmp_path])
    monkeypatch.setenv("MY_TOKEN", "hf_abcdefgh")
    with pytest.raises(ExportError, match=r"^config.json holds the secret of MY_TOKEN") as caught:
        refuse_leaks(tmp_path, [tmp_path])
    assert "hf_abcdefgh" not in str(caught.value)


def places(model_folder: Path, data_folder: Path) -> list[str]:
    return [f"model.model_name_or_path={model_folder}", f"data.path={data_folder}"]


def test_a_run_is_reproduced_from_its_card(
    run: Path, model_folder: Path, data_folder: Path, tmp_path: Path
) -> None:
    """The card has no folders of the machine it was written on, so they are given again."""
    give(run, tmp_path / "out")
    again = tmp_path / "again"
    reproduce(str(tmp_path / "out"), again, places(model_folder, data_folder), read_launch({}))
    found = json.loads((again / "reproduction.json").read_text())
    assert found["adapter"] is True and set(found["rows"].values()) == {True}
    assert {"rougeL", "loss"} <= found["results"].keys()
    assert {one["verdict"] for one in found["results"].values()} == {"same"}
    ours, theirs = (load_file(one / "adapter_model.safetensors") for one in (run, again))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_the_hub_has_what_was_verified_and_reproduces_it(
    hub: HubServer,
    run: Path,
    model_folder: Path,
    data_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    said = give(run, "hub:me/talk")
    assert said[-1].startswith("Published: ") and hub.repository("me/talk").private
    sent = published(hub, "me/talk")
    assert sent.keys() == FILES | {"adapter_model.safetensors", "adapter_config.json"}
    assert sent["adapter_model.safetensors"] == (run / "adapter_model.safetensors").read_bytes()
    again = tmp_path / "again"
    more = [*places(model_folder, data_folder), "export.merge=false"]
    reproduce("hub:me/talk", again, more, read_launch({}))
    found = json.loads((again / "reproduction.json").read_text())
    assert {one["verdict"] for one in found["results"].values()} == {"same"}
    assert set(found["rows"].values()) == {True}
    assert TOKEN not in "".join([*said, *capsys.readouterr()])


def test_a_hub_that_refuses_leaves_the_run_whole(hub: HubServer, run: Path, tmp_path: Path) -> None:
    before = digests(run)
    with pytest.raises(
        HubError, match=rf"Continue with: peftune export {run} --to hub:other/talk$"
    ):
        give(run, "hub:other/talk")
    assert digests(run) == before


def test_other_results_are_an_error(run: Path, tmp_path: Path) -> None:
    """A run that is still here knows its folders itself."""
    more = ["train.learning_rate=1e-4", "export={merge: false, verify: false}"]
    with pytest.raises(ReproductionError, match=r"does not have the card's .*loss.*: see above"):
        reproduce(str(run), tmp_path / "again", more, read_launch({}))


def test_cards_of_others_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"has no README.md; give a run"):
        reproduce(str(tmp_path), tmp_path / "again", [], read_launch({}))
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n")
    with pytest.raises(RecipeError, match=r"its README.md holds no recipe"):
        reproduce(str(tmp_path), tmp_path / "again", [], read_launch({}))


@pytest.mark.parametrize(
    ("folded", "message"),
    [
        ("- a", "folds in is no recipe"),
        ("a: [", "README.md cannot be read: "),
        ("task: dance", "the recipe of its card is not valid here: task: "),
    ],
)
def test_a_card_of_another_kind_is_one_line(folded: str, message: str, tmp_path: Path) -> None:
    fold = f"<details><summary>x</summary>\n\n```yaml\n{folded}\n```\n\n</details>\n"
    (tmp_path / "README.md").write_text(f"---\nlicense: mit\n---\n{fold}")
    with pytest.raises(RecipeError, match=message) as caught:
        reproduce(str(tmp_path), tmp_path / "again", [], read_launch({}))
    assert "\n" not in str(caught.value)


def test_a_measure_that_is_missing_differs(run: Path) -> None:
    known = read_card(run, "run")
    (run / "eval_results.json").write_text(json.dumps({"adapted": {}}))
    assert {one["verdict"] for one in compared(known, run)["results"].values()} == {"differs"}


def test_a_value_within_the_interval_of_the_new_one_counts() -> None:
    measured = {"value": 0.5, "low": 0.4, "high": 0.6}
    assert verdict(0.5000001, measured)["verdict"] == "same"
    assert verdict(0.45, measured)["verdict"] == "within its interval"
    assert verdict(0.3, measured)["verdict"] == "differs"
    assert verdict(1.0, 1.1)["verdict"] == "differs"
