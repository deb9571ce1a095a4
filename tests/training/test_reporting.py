import io
import json
import sys
from itertools import pairwise

import pytest
from rich.table import Table
from transformers import TrainerState

from peftune.plan import make_plan
from peftune.training.loop import StepRecord
from peftune.training.reporting import Reporter
from peftune.training.section import TrainSection
from peftune.training.selection import Selection

KEYS = {"learning_rate": 1.0e-3, "per_device_train_batch_size": 2, "global_batch_size": 4}


def plan_of(steps):
    """Four steps an epoch."""
    return make_plan(
        rows=15,
        world_size=1,
        per_device=2,
        global_batch=4,
        accumulation=None,
        epochs=None,
        max_steps=steps,
        warmup_steps=None,
        warmup_ratio=None,
    )


class Clock:
    """Time that passes only when a test says so."""

    def __init__(self):
        self.now_s = 100.0

    def monotonic(self):
        return self.now_s


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr("peftune.training.reporting.time", clock)
    return clock


@pytest.fixture
def screen(monkeypatch):
    """stderr of a batch job: no terminal, and nothing in the environment that pretends one."""
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    return io.StringIO()


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    return Terminal()


@pytest.fixture
def make(tmp_path, clock, screen, monkeypatch):
    def make(steps=8, is_main=True, track=lambda values, step: None, stderr=screen, **keys):
        # Not in a fixture: pytest puts its own stderr back between setup and test.
        monkeypatch.setattr(sys, "stderr", stderr)
        section = TrainSection(max_steps=steps, **KEYS, **keys)
        return Reporter(is_main, tmp_path, plan_of(steps), section, track)

    return make


def record_of(step, loss=2.0, grad_norm=0.5, target_tokens=10, tokens=40):
    return StepRecord(step, loss, grad_norm, 1.0e-3, target_tokens, tokens)


def timings_of(folder):
    return [json.loads(line) for line in (folder / "timings.jsonl").read_text().splitlines()]


def lines_of(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_line_for_every_step(make, tmp_path, clock):
    with make(steps=2) as reporter:
        for step in (1, 2):
            clock.now_s += 2.0
            reporter.step(record_of(step, loss=3.0 - step))
    assert lines_of(tmp_path)[1] == {
        "step": 2,
        "epoch": 0.5,
        "loss": 1.0,
        "grad_norm": 0.5,
        "learning_rate": 0.001,
        "target_tokens": 10,
        "tokens": 40,
    }
    assert timings_of(tmp_path)[1] == {"step": 2, "tokens_per_second": 20.0, "wall_s": 4.0}


def test_lines_are_on_disk_as_soon_as_they_are_reported(make, tmp_path):
    with make() as reporter:
        for step in (1, 2, 3):
            reporter.step(record_of(step))
            assert len(lines_of(tmp_path)) == step


def test_only_every_so_many_steps_and_the_last(make, tmp_path):
    with make(steps=7, logging_steps=3) as reporter:
        for step in range(1, 8):
            reporter.step(record_of(step))
    assert [line["step"] for line in lines_of(tmp_path)] == [3, 6, 7]


def test_validation_has_its_own_line(make, tmp_path, clock):
    with make() as reporter:
        reporter.step(record_of(1))
        clock.now_s += 5.0
        reporter.validation(1, 1.25, 321)
    assert lines_of(tmp_path)[1] == {
        "step": 1,
        "epoch": 0.25,
        "eval_loss": 1.25,
        "target_tokens": 321,
    }


def test_speed_counts_the_time_of_steps_alone(make, tmp_path, clock):
    """Between two steps a validation, and whatever the caller announces."""
    between = (
        lambda reporter: reporter.validation(1, 1.0, 5),
        lambda reporter: reporter.restart_clock(),
    )
    with make() as reporter:
        for step, other_work in enumerate(between, 1):
            clock.now_s += 1000.0
            other_work(reporter)
            clock.now_s += 4.0
            reporter.step(record_of(step))
    assert [line["tokens_per_second"] for line in timings_of(tmp_path)] == [10.0, 10.0]


def test_an_overflowed_fp16_step_is_still_json(make, tmp_path):
    with make() as reporter:
        reporter.step(record_of(1, grad_norm=float("inf")))
    (line,) = (tmp_path / "metrics.jsonl").read_text().splitlines()
    read = json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert read["grad_norm"] is None


def test_transformers_reads_the_state(make, tmp_path):
    selection = Selection().updated(2, 1.5).updated(3, 1.75)
    with make(steps=10, eval_steps=1, save_steps=2, logging_steps=2) as reporter:
        for step in (1, 2, 3):
            reporter.step(record_of(step, loss=float(step)))
        reporter.validation(3, 1.75, 9)
        reporter.save_state(tmp_path, 3, selection)
    state = TrainerState.load_from_json(str(tmp_path / "trainer_state.json"))
    assert (state.global_step, state.max_steps) == (3, 10)
    assert (state.epoch, state.num_train_epochs) == (0.75, 3)
    assert (state.logging_steps, state.eval_steps, state.save_steps) == (2, 1, 2)
    assert (state.best_metric, state.best_global_step) == (1.5, 2)
    assert state.best_model_checkpoint == "checkpoint-2"
    assert state.log_history == [
        {"step": 2, "epoch": 0.5, "loss": 2.0, "grad_norm": 0.5, "learning_rate": 0.001},
        {"step": 3, "epoch": 0.75, "eval_loss": 1.75},
    ]


@pytest.mark.parametrize("save_steps", [None, 3])
def test_no_checkpoint_is_named_that_was_never_written(make, tmp_path, save_steps):
    with make(eval_steps=2, save_steps=save_steps) as reporter:
        reporter.save_state(tmp_path, 4, Selection().updated(2, 1.5))
    state = TrainerState.load_from_json(str(tmp_path / "trainer_state.json"))
    assert state.best_global_step == 2
    assert state.best_model_checkpoint is None


def test_totals_of_the_run_weigh_every_token_alike(make, clock):
    with make() as reporter:
        for step, (loss, target_tokens) in enumerate([(1.0, 30), (5.0, 10)], 1):
            clock.now_s += 2.0
            reporter.step(record_of(step, loss=loss, target_tokens=target_tokens))
    assert reporter.train_results(2) == {
        "epoch": 0.5,
        "global_step": 2,
        "train_loss": 2.0,
        "train_runtime": 4.0,
        "train_steps_per_second": 0.5,
        "train_tokens_per_second": 20.0,
        "train_tokens": 80,
        "train_target_tokens": 40,
    }


def test_trackers_get_the_names_of_the_field(make):
    tracked = []
    with make(track=lambda values, step: tracked.append((values, step))) as reporter:
        reporter.step(record_of(1))
        reporter.validation(1, 1.25, 3)
    assert tracked == [
        ({"train/loss": 2.0, "train/grad_norm": 0.5, "train/learning_rate": 0.001}, 1),
        ({"eval/loss": 1.25}, 1),
    ]


def test_other_ranks_are_silent_and_write_nothing(make, tmp_path, screen):
    tracked = []
    with make(is_main=False, track=lambda *arguments: tracked.append(arguments)) as reporter:
        reporter.say("hello")
        reporter.step(record_of(1))
        reporter.validation(1, 1.0, 3)
    assert (screen.getvalue(), tracked, list(tmp_path.iterdir())) == ("", [], [])


def test_without_a_terminal_there_are_plain_lines_in_good_time(make, screen, clock):
    with make(steps=200) as reporter:
        for step in range(1, 201):
            clock.now_s += 3.0
            reporter.step(record_of(step))
    text = screen.getvalue()
    assert "\x1b" not in text and "\r" not in text
    shown = [int(line.split("/")[0].removeprefix("step ")) for line in text.splitlines()]
    assert shown[0] == 1 and shown[-1] == 200
    assert max(later - earlier for earlier, later in pairwise(shown)) <= 20
    assert len(shown) <= 25
    assert "step 100/200  loss 2.0000  lr 1.00e-03  13 tokens/s  300 s left" in text


def test_text_is_shown_as_it_is(make, screen):
    """A long path stays one line; brackets and colons are no markup; tables are drawn."""
    path = "outputs/[bold]run[/x]/:dog:/" + "long/" * 40
    table = Table("name")
    table.add_row("cell")
    with make() as reporter:
        reporter.say(path)
        reporter.say(table)
    lines = screen.getvalue().splitlines()
    assert lines[0] == path
    assert any("cell" in line for line in lines)


def test_a_terminal_gets_a_bar_and_gets_its_cursor_back_after_an_error(make, terminal):
    with pytest.raises(ZeroDivisionError), make(stderr=terminal) as reporter:
        reporter.step(record_of(1))
        raise ZeroDivisionError
    text = terminal.getvalue()
    assert "1/8" in text and "loss 2.0000" in text
    assert "step 1/8" not in text
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")


def test_a_dumb_terminal_gets_lines(make, terminal, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    with make(stderr=terminal) as reporter:
        reporter.step(record_of(1))
    assert "step 1/8" in terminal.getvalue()
    assert "\x1b" not in terminal.getvalue()


def test_a_run_that_goes_on_counts_on(make, tmp_path, clock):
    """Totals, and the log up to where it was then."""
    with make() as first:
        clock.now_s += 2.0
        first.step(record_of(1, loss=3.0))
        totals = first.totals()
        first.step(record_of(2))
    log = tmp_path / "metrics.jsonl"
    assert totals["metrics_bytes"] == len(log.read_text().splitlines(keepends=True)[0])
    with make() as second:
        second.restore(totals)
        clock.now_s += 2.0
        second.step(record_of(2, loss=1.0))
    assert second.train_results(2)["train_loss"] == 2.0
    assert second.train_results(2)["train_runtime"] == 4.0
    assert second.train_results(2)["train_tokens"] == 80
