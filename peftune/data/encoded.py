"""Splits as tokens: made once, by all cores, kept under a name that says what they were made from."""

import hashlib
import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from itertools import chain, islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from filelock import FileLock
from rich.progress import Progress

from peftune import __version__
from peftune.data.columns import Problem
from peftune.data.encoders import ENCODERS, Encoding
from peftune.data.examples import Reading, read_rows
from peftune.data.labels import LabelCounts, count_labels
from peftune.data.ledger import LEDGER, Ledger, ledger_batch
from peftune.data.shards import Shard, StoredRows, mapped, row_batch, row_schema, write_batches
from peftune.data.table import Chunk, Row, Table
from peftune.errors import DataError
from peftune.records import read_json, write_json

CACHE_VARIABLE = "PEFTUNE_CACHE"
FORMAT = 2
"""Goes up with every change that gives other tokens for the same recipe."""
SHARD_ROWS = 4096
ROWS_AT_ONCE = 256
"""Rows that are Python objects at the same time."""
WORTH_A_POOL = 8
"""Shards from which on starting processes costs less than it saves."""
WHERE_NOT_WHAT = {
    "path", "name", "revision", "train", "validation", "test", "validation_fraction",
    "max_train_samples", "max_validation_samples", "max_test_samples", "accept",
    "splits", "mixture", "streaming", "format",
}  # fmt: skip
"""Keys of `data:` that say where rows are, not what becomes of them: the source's own fingerprint
stands for them."""


@dataclass(frozen=True)
class SplitJob:
    """How the rows of a split become tokens; goes to every worker."""

    reading: Reading
    encoding: Encoding
    source_key: str
    """The recipe key that names the source."""


@dataclass(frozen=True)
class EncodedSplit:
    """A split as tokens on disk."""

    rows: StoredRows
    ledger: Ledger
    problems: Sequence[tuple[Problem, int]]
    """Rows that are no examples: the first of each kind, and how many are like it."""
    folder: Path


def cache_folder() -> Path:
    """Where encoded splits are kept: `PEFTUNE_CACHE`, or the user's cache."""
    return Path(os.environ.get(CACHE_VARIABLE) or "~/.cache/peftune").expanduser()


def made_folder(folder: Path) -> Path:
    """The folder, made where it is missing. Raises DataError where that cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"{CACHE_VARIABLE}: tokens cannot be kept in {cache_folder()} ({error.strerror}); set this "
            "environment variable to a folder that can be written to."
        ) from error
    return folder


def encode_split(table: Table, job: SplitJob, title: str, shows: bool) -> EncodedSplit:
    """The split as tokens, from disk where they were made before.

    Needs no other process: whoever comes first makes them, others wait at the folder's lock. A shard
    that is whole is never made again, so an interrupted preparation goes on where it was. Raises
    DataError for rows that cannot be read at all and templates that cannot be used.
    """
    folder = made_folder(cache_folder() / split_key(table, job))
    manifest = folder / "manifest.json"

    def made() -> dict[str, Any]:
        shards = _make(table, job, folder, title, shows)
        return {"shards": shards, "source": table.place, "format": FORMAT}

    return _opened(folder, _made_once(manifest, folder / ".lock", made)["shards"])


def counted_labels(table: Table, reading: Reading) -> LabelCounts:
    """The labels of a split, from disk where they were counted before; one process counts, others wait.

    Raises DataError for a split in which no row can be used; single such rows are left to the gates.
    """
    section = reading.section.model_dump(mode="json", exclude=WHERE_NOT_WHAT)
    identity = json.dumps([FORMAT, __version__, table.fingerprint(), section], sort_keys=True)
    name = f"{hashlib.sha256(identity.encode()).hexdigest()}.json"
    file = made_folder(cache_folder() / "labels") / name
    lock = file.with_suffix(".lock")
    return LabelCounts(**_made_once(file, lock, lambda: vars(_counted(table, reading))))


def _made_once(file: Path, lock: Path, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What a JSON file holds; where it is not there yet, whoever has the lock makes it, others wait."""
    if not file.is_file():
        with FileLock(lock):
            if not file.is_file():
                write_json(file, make())
    return read_json(file)


def _counted(table: Table, reading: Reading) -> LabelCounts:
    wrong: list[Problem] = []

    def labels() -> Iterator[tuple[int, Any]]:
        for some in _batched(iter(table)):
            examples, problems = read_rows(some, reading, table.key)
            wrong.extend(problems[:1])
            yield from ((example.row, example.label) for example in examples)

    counts = count_labels(labels(), table)
    if not counts.names and wrong:
        raise DataError(f"{wrong[0].text} in every row; the first is {table.at(wrong[0].row)}.")
    return counts


def split_key(table: Table, job: SplitJob) -> str:
    """SHA-256 over everything that the tokens are a function of."""
    encoding, tokenizer = job.encoding, job.encoding.tokenizer
    made_from = {
        "format": FORMAT,
        "peftune": __version__,
        "source": table.fingerprint(),
        "data": job.reading.section.model_dump(mode="json", exclude=WHERE_NOT_WHAT),
        "chat_template": encoding.chat.template if encoding.chat else None,
        "roles": job.reading.roles,
        "template": job.reading.default_template,
        "objective": encoding.objective,
        "labels": encoding.labels,
        "closing_id": encoding.closing_id,
        "prompts": encoding.prompts,
        "tokenizer": tokenizer_identity(tokenizer),
    }
    return hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()


def tokenizer_identity(tokenizer: Any) -> list[Any]:
    """All that decides which tokens a text becomes, without what the last call left behind."""
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    backend.pop("truncation"), backend.pop("padding")
    return [type(tokenizer).__name__, backend, tokenizer.special_tokens_map]


def _make(table: Table, job: SplitJob, folder: Path, title: str, shows: bool) -> int:
    """Make the shards that are not whole; returns how many there are in all."""
    shards = 0

    def todo() -> Iterator[tuple[Chunk, Shard]]:
        nonlocal shards
        for shards, chunk in enumerate(table.chunks(SHARD_ROWS), 1):
            shard = Shard(folder, shards - 1)
            if not shard.is_whole():
                yield chunk, shard

    pieces = todo()
    first = list(islice(pieces, WORTH_A_POOL))
    pooled = len(first) == WORTH_A_POOL
    with Progress(disable=not shows or not pooled) as progress:
        made = _made(chain(first, pieces), job, pooled)
        for _ in progress.track(made, description=title, total=None):
            pass
    return shards


def _made(todo: Iterable[tuple[Chunk, Shard]], job: SplitJob, pooled: bool) -> Iterator[None]:
    workers = _cores()
    if not pooled or workers < 2:
        for chunk, shard in todo:
            encode_chunk(chunk, job, shard)
            yield
        return
    # A fork would copy threads that hold locks; the tokenizer's own threads would fight over cores.
    pool = ProcessPoolExecutor(
        workers, mp_context=get_context("spawn"), initializer=_start_worker, initargs=(job,)
    )
    # A chunk may hold its rows, so no more of them wait than keep the workers busy.
    waiting: deque[Future[None]] = deque()
    try:
        for piece in todo:
            waiting.append(pool.submit(_work, piece))
            if len(waiting) > 2 * workers:
                waiting.popleft().result()
                yield
        while waiting:
            waiting.popleft().result()
            yield
    finally:
        pool.shutdown(cancel_futures=True)


def _cores() -> int:
    """Cores that this process may use; systems without affinity have no fewer than there are."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1


_worker_job: list[SplitJob] = []


def _start_worker(job: SplitJob) -> None:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    _worker_job.append(job)


def _work(piece: tuple[Chunk, Shard]) -> None:
    encode_chunk(piece[0], _worker_job[0], piece[1])


def encode_chunk(chunk: Chunk, job: SplitJob, shard: Shard) -> None:
    """Read, check and tokenise one chunk of a split and write its shard."""
    objective = job.encoding.objective
    rows, ledger, problems = [], [], []
    for some in _batched(chunk.read()):
        examples, wrong = read_rows(some, job.reading, job.source_key)
        outcomes = ENCODERS[objective](examples, job.encoding)
        rows.append(row_batch([row for one in outcomes for row in one.rows], objective))
        ledger.append(ledger_batch(examples, outcomes))
        problems += [(problem, 1) for problem in wrong]
    write_batches(shard.rows, row_schema(objective), rows)
    write_batches(shard.ledger, LEDGER, ledger)
    write_json(shard.problems, [[vars(first), count] for first, count in kinds(problems)])


def _batched(rows: Iterator[tuple[int, Row]]) -> Iterator[list[tuple[int, Row]]]:
    while some := list(islice(rows, ROWS_AT_ONCE)):
        yield some


def kinds(problems: Iterable[tuple[Problem, int]]) -> list[tuple[Problem, int]]:
    """The first problem of each kind, and how many there are of it; each comes with a count."""
    found: dict[tuple[int, str], tuple[Problem, int]] = {}
    for problem, alike in problems:
        first, count = found.get((problem.order, problem.text), (problem, 0))
        found[problem.order, problem.text] = (first, count + alike)
    return list(found.values())


def _opened(folder: Path, count: int) -> EncodedSplit:
    shards = [Shard(folder, index) for index in range(count)]
    problems = kinds(
        (Problem(**values), alike)
        for shard in shards
        for values, alike in json.loads(shard.problems.read_text(encoding="utf-8"))
    )
    return EncodedSplit(
        rows=StoredRows([batch for shard in shards for batch in mapped(shard.rows)]),
        ledger=Ledger([batch for shard in shards for batch in mapped(shard.ledger)]),
        problems=sorted(problems, key=lambda kind: (kind[0].order, kind[0].row)),
        folder=folder,
    )
