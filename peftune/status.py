"""How far a run is, told from its folder alone; imports no torch."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from peftune.checkpoint.folder import checkpoint_steps
from peftune.compatibility import ENVIRONMENT, FINISHED, RUN_MARK
from peftune.engines.heartbeat import HEARTBEATS
from peftune.errors import RecipeError
from peftune.records import read_json, read_jsonl

METRICS, TIMINGS = "metrics.jsonl", "timings.jsonl"
WINDOW = 50
"""Lines of the log that speed is told from."""
SILENT_S = 30.0
"""A run that has written no heartbeat for so long does not run any more, or cannot write."""


@dataclass(frozen=True)
class RankStatus:
    """One process of the run."""

    rank: int
    host: str
    stage: str
    heard_s: float
    """Seconds since it was last heard of, by the clock of whoever asks."""
    place: str


@dataclass(frozen=True)
class Status:
    """A run at one moment."""

    folder: str
    state: str
    """`finished`, `running`, `stopped` (exit code 75), `failed`, or `silent`: nothing has been heard of
    it for a while, and it did not say why."""
    step: int
    total_steps: int | None
    loss: float | None
    validation_loss: float | None
    tokens_per_second: float | None
    seconds_left: float | None
    last_checkpoint: str | None
    last_error: str | None
    ranks: tuple[RankStatus, ...] = field(default=())

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        """A few lines for people."""
        total = f" of {self.total_steps:,}" if self.total_steps else ""
        share = f" ({self.step / self.total_steps:.0%})" if self.total_steps else ""
        lines = {
            "state": self.state,
            "step": f"{self.step:,}{total}{share}",
            "loss": _number(self.loss, "{:.4f}"),
            "validation loss": _number(self.validation_loss, "{:.4f}"),
            "speed": _number(self.tokens_per_second, "{:,.0f} tokens/s"),
            "time left": _duration(self.seconds_left) if self.state == "running" else None,
            "last checkpoint": self.last_checkpoint or "none",
            "last error": self.last_error,
        }
        shown = [f"{name:16}{value}" for name, value in lines.items() if value]
        return "\n".join([self.folder, *shown, *map(_rank_line, self.ranks)])


def _number(value: float | None, form: str) -> str | None:
    return None if value is None else form.format(value)


def _duration(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    minutes, hours = int(seconds) // 60, int(seconds) // 3600
    return f"{hours} h {minutes % 60} min" if hours else f"{minutes} min {int(seconds) % 60} s"


def _rank_line(rank: RankStatus) -> str:
    return f"{f'rank {rank.rank}':16}{rank.host}, {rank.stage}, heard of {rank.heard_s:.0f} s ago"


def read_status(folder: Path, now: float) -> Status:
    """The run in `folder` at the time `now`, in seconds since 1970. Raises RecipeError."""
    if not (folder / RUN_MARK).is_file():
        raise RecipeError(f"{folder} holds no run of peftune, or one that has not begun to train.")
    beats, metrics = read_json(folder / HEARTBEATS), read_jsonl(folder / METRICS)
    timings = read_jsonl(folder / TIMINGS)
    total = read_json(folder / ENVIRONMENT).get("total_steps")
    step = max((line["step"] for line in metrics), default=0)
    steps = checkpoint_steps(folder)
    state = _state(folder, beats, now)
    return Status(
        folder=str(folder),
        state=state,
        step=step,
        total_steps=total,
        loss=_last(metrics, "loss"),
        validation_loss=_last(metrics, "eval_loss"),
        tokens_per_second=_last(timings, "tokens_per_second"),
        seconds_left=_seconds_left(timings, step, total),
        last_checkpoint=f"checkpoint-{steps[-1]}" if steps else None,
        last_error=beats.get("error") or None,
        ranks=_ranks(beats, now) if state in ("running", "silent", "failed") else (),
    )


def _state(folder: Path, beats: Mapping[str, Any], now: float) -> str:
    if (folder / FINISHED).is_file():
        return "finished"
    if "code" in beats:
        return {0: "finished", 75: "stopped"}.get(beats["code"], "failed")
    return "running" if now - beats.get("time", 0.0) < SILENT_S else "silent"


def _last(lines: list[dict[str, Any]], key: str) -> float | None:
    return next((line[key] for line in reversed(lines) if key in line), None)


def _seconds_left(timings: list[dict[str, Any]], step: int, total: int | None) -> float | None:
    """By the seconds of the last steps, validations and checkpoints among them."""
    window = timings[-WINDOW:]
    # The clock of the log begins anew with each process.
    start = max(
        (i for i in range(1, len(window)) if window[i]["wall_s"] < window[i - 1]["wall_s"]),
        default=0,
    )
    window = window[start:]
    if total is None or len(window) < 2 or window[-1]["step"] == window[0]["step"]:
        return None
    seconds = window[-1]["wall_s"] - window[0]["wall_s"]
    return seconds / (window[-1]["step"] - window[0]["step"]) * (total - step)


def _ranks(beats: Mapping[str, Any], now: float) -> tuple[RankStatus, ...]:
    return tuple(
        RankStatus(
            rank=beat["rank"],
            host=beat["host"],
            stage=beat["stage"],
            heard_s=max(0.0, now - beat["heard"]),
            place=beat["stack"][-1] if beat["stack"] else "",
        )
        for beat in beats.get("ranks", ())
    )
