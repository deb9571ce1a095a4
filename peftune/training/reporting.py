"""Progress on the screen and in files: the only place that prints while a run trains."""

import json
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from peftune.plan import Plan
from peftune.records import append_line, read_jsonl, sync_file, write_json
from peftune.training.section import TrainSection
from peftune.training.selection import Selection, is_due

if TYPE_CHECKING:
    from peftune.training.loop import StepRecord

Track = Callable[[Mapping[str, float], int], None]
METRICS, TIMINGS = "metrics.jsonl", "timings.jsonl"
# Without a terminal a line is printed this many times in a run, so that logs stay short.
PLAIN_LINES = 20


class Reporter:
    """Bar or lines on stderr, logs, `trainer_state.json`, trackers; silent off rank 0.

    `metrics.jsonl` holds what a run computes, the same whenever and wherever it runs; how long that
    took is in `timings.jsonl`.
    """

    def __init__(
        self, is_main: bool, folder: Path, plan: Plan, section: TrainSection, track: Track
    ) -> None:
        self.is_main, self.folder, self.plan, self.section = is_main, folder, plan, section
        self.track = track
        self.nll_sum, self.target_tokens, self.tokens, self.training_s = 0.0, 0, 0, 0.0
        # Texts of the data may hold brackets or colons that rich would read as markup.
        self.console = Console(stderr=True, quiet=not is_main, markup=False, emoji=False)
        self.bar = Progress(
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.description}", markup=False),
            TimeRemainingColumn(),
            console=self.console,
            disable=not is_main or not sys.stderr.isatty() or self.console.is_dumb_terminal,
        )
        self.started = self.last_step = time.monotonic()

    def __enter__(self) -> Self:
        self.bar.start()
        self.bar_task = self.bar.add_task("", total=self.plan.total_steps)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.bar.stop()

    def say(self, text: Any) -> None:
        """Print one line, or a rich renderable, above the bar."""
        self.console.print(text, highlight=False, soft_wrap=isinstance(text, str))

    def restart_clock(self) -> None:
        """Leave the time since the last step out of the next step's speed."""
        self.last_step = time.monotonic()

    def step(self, record: "StepRecord") -> None:
        """Report a finished optimizer step."""
        speed = self._count(record)
        line = f"loss {record.loss:.4f}  lr {record.learning_rate:.2e}  {speed:,.0f} tokens/s"
        self.bar.update(self.bar_task, completed=record.step, description=line)
        self._plain_line(record.step, line)
        if record.step % self.section.logging_steps == 0 or record.step == self.plan.total_steps:
            values = {
                "loss": record.loss,
                "grad_norm": record.grad_norm,
                "learning_rate": record.learning_rate,
            }
            extra = {"target_tokens": record.target_tokens, "tokens": record.tokens}
            self._write(record.step, "train", values, extra)
            self._write_timing(record.step, speed)

    def _count(self, record: "StepRecord") -> float:
        """Add the step to the run's totals; returns its tokens per second."""
        now = time.monotonic()
        step_s = max(now - self.last_step, 1e-9)
        self.last_step = now
        self.training_s += step_s
        self.nll_sum += record.loss * record.target_tokens
        self.target_tokens += record.target_tokens
        self.tokens += record.tokens
        return record.tokens / step_s

    def _plain_line(self, step: int, line: str) -> None:
        total = self.plan.total_steps
        due = step == 1 or is_due(step, max(1, total // PLAIN_LINES), total)
        if self.bar.disable and due:
            remaining_s = self.training_s / step * (total - step)
            self.say(f"step {step}/{total}  {line}  {remaining_s:,.0f} s left")

    def validation(self, step: int, loss: float, target_tokens: int) -> None:
        """Report a validation loss."""
        self.say(f"step {step}: validation loss {loss:.4f} over {target_tokens:,} tokens")
        self._write(step, "eval", {"eval_loss": loss}, {"target_tokens": target_tokens})
        self.restart_clock()

    def _write(
        self, step: int, stage: str, values: Mapping[str, float], extra: Mapping[str, float]
    ) -> None:
        if not self.is_main:
            return
        # JSON has no infinity, which the gradient norm of a skipped fp16 step is.
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
        entry = {"step": step, "epoch": step / self.plan.steps_per_epoch, **finite, **extra}
        append_line(self.folder / METRICS, json.dumps(entry, allow_nan=False))
        names = {f"{stage}/{name.removeprefix('eval_')}": value for name, value in values.items()}
        self.track(names, step)

    def _write_timing(self, step: int, speed: float) -> None:
        if self.is_main:
            wall_s = round(time.monotonic() - self.started, 3)
            entry = {"step": step, "tokens_per_second": round(speed, 1), "wall_s": wall_s}
            append_line(self.folder / TIMINGS, json.dumps(entry))

    def sync(self) -> None:
        """Make the log of metrics durable, which a checkpoint refers to."""
        if (self.folder / METRICS).is_file():
            sync_file(self.folder / METRICS)

    def totals(self) -> dict[str, float]:
        """What has been counted so far, for a run that goes on from here."""
        log = self.folder / METRICS
        return {
            "nll_sum": self.nll_sum,
            "target_tokens": self.target_tokens,
            "tokens": self.tokens,
            "training_s": self.training_s,
            "metrics_bytes": log.stat().st_size if log.is_file() else 0,
        }

    def restore(self, totals: Mapping[str, Any]) -> None:
        """Go on counting from what `totals` gave."""
        self.nll_sum, self.training_s = totals["nll_sum"], totals["training_s"]
        self.target_tokens, self.tokens = totals["target_tokens"], totals["tokens"]

    def save_state(self, folder: Path, step: int, selection: Selection) -> None:
        """Write `trainer_state.json` with the whole history."""
        history = [
            {key: value for key, value in line.items() if key not in ("target_tokens", "tokens")}
            for line in read_jsonl(self.folder / METRICS)
        ]
        write_json(folder / "trainer_state.json", self.trainer_state(step, selection, history))

    def trainer_state(
        self, step: int, selection: Selection, history: Sequence[Mapping[str, Any]]
    ) -> dict[str, Any]:
        """The content of `trainer_state.json`, with the keys of transformers' TrainerState."""
        plan, section, best = self.plan, self.section, selection.best_step
        best_saved = best is not None and is_due(best, section.save_steps, plan.total_steps)
        return {
            "global_step": step,
            "epoch": step / plan.steps_per_epoch,
            "max_steps": plan.total_steps,
            "num_train_epochs": -(-plan.total_steps // plan.steps_per_epoch),
            "train_batch_size": section.per_device_train_batch_size,
            "num_input_tokens_seen": self.tokens,
            "logging_steps": section.logging_steps,
            "eval_steps": section.eval_steps or 0,
            "save_steps": section.save_steps or 0,
            "best_metric": selection.best_loss,
            "best_global_step": best,
            "best_model_checkpoint": f"checkpoint-{best}" if best_saved else None,
            "is_world_process_zero": True,
            "log_history": list(history),
        }

    def train_results(self, step: int) -> dict[str, float]:
        """The content of train_results.json after `step` steps, with Hugging Face's names.

        `train_loss` is the mean over all supervised tokens of the run in nats, `train_runtime` the
        seconds spent in steps.
        """
        return {
            "epoch": step / self.plan.steps_per_epoch,
            "global_step": step,
            "train_loss": self.nll_sum / self.target_tokens,
            "train_runtime": round(self.training_s, 3),
            "train_steps_per_second": round(step / self.training_s, 3),
            "train_tokens_per_second": round(self.tokens / self.training_s, 1),
            "train_tokens": self.tokens,
            "train_target_tokens": self.target_tokens,
        }
