"""The recipe's `data:` section."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from peftune.data.rows import Fault
from peftune.section import Items, Section

Split = Literal["train", "validation", "test"]
TrainOn = Literal["assistant", "last", "completion", "all"]
Gate = Literal["invalid", Fault, "unknown_tokens", "duplicates", "overlap"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


FormatName = Literal[
    "messages",
    "prompt_completion",
    "text",
    "alpaca",
    "sharegpt",
    "squad",
    "classification",
    "token_classification",
    "parallel",
]
Paths = str | Items[str] | None


class MixtureEntry(Section):
    """One source of a mixture."""

    path: str | None = None
    """Hub id, folder or `embedded:dialogues`. Exactly one of `path` and `train`."""

    name: str | None = None
    """Configuration of a Hub data set."""

    revision: str | None = None
    """Branch, tag or commit of a Hub data set."""

    split: str | None = None
    """Split of `path`, with a slice or without, e.g. `train[:10%]`; without it `train`."""

    train: Paths = None
    """File, glob or list of files with the rows."""

    format: FormatName | None = None
    """As `data.format`, for this source."""

    columns: dict[str, str] = Field({})
    """Role to column name, for this source."""

    weight: float | None = Field(None, gt=0)
    """Share of the training rows, in proportion to the other weights: as many rows are used as can
    be without using a row twice. Without weights every row of every source is used."""

    max_samples: int | None = Field(None, ge=1)
    """Use only the first so many rows of this source."""

    @model_validator(mode="after")
    def one_source(self) -> Self:
        if (self.path is None) == (self.train is None):
            raise ValueError("give exactly one of path and train")
        if self.path is None and (self.name or self.revision or self.split):
            raise ValueError("name, revision and split belong to path, which is not set")
        return self


class DataSection(Section):
    """Where rows come from and how one row becomes a prompt and the completion to learn."""

    path: str | None = None
    """Hub id, a folder with train/validation/test files, or one of the small sets inside the
    package: `embedded:dialogues`, `embedded:requests`, `embedded:phrases`, `embedded:passages`.
    Exactly one of `path`, `train` and `mixture`."""

    name: str | None = None
    """Configuration of a Hub data set (`path` only)."""

    revision: str | None = None
    """Branch, tag or commit of a Hub data set (`path` only)."""

    splits: dict[Split, str] = Field({})
    """Which split of `path` serves, with a slice or without, e.g.
    `{train: "train[:90%]", validation: "train[90%:]", test: "dev[:500]"}`. A split that is not listed
    has its own name there."""

    train: Paths = None
    """Training rows: a file (.jsonl, .json, .csv, .tsv, .parquet, .arrow, .txt), a glob such as
    `shards/*.jsonl`, an address (`s3://`, `gs://`, `hf://`, `https://`), or a list of these."""

    validation: Paths = None
    """Validation rows, as `train`; replaces the validation split of `path`."""

    test: Paths = None
    """Test rows, as `train`; replaces the test split of `path`."""

    mixture: Items[MixtureEntry] = ()
    """Several sources of training rows, in place of `path` and `train`. Test rows come from `test`,
    validation rows from `validation` or `validation_fraction`."""

    streaming: bool = False
    """Read a Hub data set or remote files as a stream, for what does not fit on the disk; needs
    `max_train_samples`, and the like for every other split that is streamed."""

    validation_fraction: float | None = Field(None, gt=0, lt=1)
    """Share of the training rows to set aside when there is no validation split."""

    format: FormatName | None = None
    """What the columns mean; without it the format is told by their names."""

    columns: dict[str, str] = Field({})
    """Role to column name, e.g. `{completion: summary}`. Roles: prompt, completion, references,
    text, text_pair, label, words, tags, context, question, answers, messages, tools. A role that is
    not listed is looked for under its own name."""

    labels: Items[str] = ()
    """Names of the labels in the order of their ids (tasks `classify` and `tag`); without it
    the labels of the training rows in alphabetical or numerical order, `O` first."""

    problem_type: (
        Literal["single_label_classification", "multi_label_classification", "regression"] | None
    ) = None
    """What a label is (task `classify`); without it a list is several labels, a number with a
    decimal point is a value, and anything else is one label."""

    prompt_template: str | None = None
    """Text of the prompt with column names in braces, e.g. `"Dialogue:\\n{dialogue}\\nSummary:"`.
    Replaces the prompt column."""

    chat_template: str | None = None
    """Wrap prompt and completion as a user and an assistant turn: `tokenizer` takes the
    tokenizer's own template, anything else is the path of a Jinja file. Task `chat` takes the
    tokenizer's own without the key."""

    train_on: TrainOn | None = None
    """What is learnt of a row. Conversations: `assistant` every answer (the default), `last` the last
    one, `all` every token. Prompts: `completion` (the default), or `all` for the prompt as well."""

    mlm_probability: float | None = Field(None, gt=0, lt=1)
    """Share of the tokens that is hidden and learnt (task `text`, encoders and encoder-decoders);
    without it 0.15, and 0.3 for models that fill in masks of several tokens (BART)."""

    source_language: str | None = None
    """Language of the prompt. Says which text of a row it is where rows have one for each language
    (columns `de` and `en`, or a `translation`); for models that have codes it is the code (NLLB:
    `deu_Latn`, mBART: `de_DE`)."""

    target_language: str | None = None
    """Language of the completion, as `source_language`."""

    max_length: int = Field(1024, ge=8)
    """Longest row in tokens, prompt and completion together; for an encoder-decoder each of the
    two."""

    overlong: Literal["error", "drop", "truncate_prompt", "split"] = "error"
    """What happens to a longer row. `truncate_prompt` shortens the prompt's columns, or drops the
    oldest turns of a conversation, and never touches the completion; `split` cuts the rows of tasks
    `text` and `tag` into windows. Counts are always reported. Task `extract` always reads a long
    context in windows."""

    doc_stride: int = Field(128, ge=1)
    """Tokens that two windows of a context share (task `extract`)."""

    accept: dict[Gate, Annotated[float, Field(ge=0, le=1)]] = Field({})
    """Share of a split's rows that may fail a gate, e.g. `{duplicates: 0.01}`; none by default.
    `duplicates` in train, `overlap` with train and rows that are mostly `unknown_tokens` stay then;
    all others are left out: `invalid` rows have no text where text should be, the rest is what the
    messages name."""

    max_train_samples: int | None = Field(None, ge=1)
    """Use only the first so many training rows."""

    max_validation_samples: int | None = Field(None, ge=1)
    """Use only the first so many validation rows."""

    max_test_samples: int | None = Field(None, ge=1)
    """Use only the first so many test rows."""

    @model_validator(mode="after")
    def one_source(self) -> Self:
        if sum((self.path is not None, self.train is not None, bool(self.mixture))) != 1:
            raise ValueError("give exactly one of path, train and mixture")
        if self.path is None and (self.name or self.revision or self.splits):
            raise ValueError("name, revision and splits belong to path, which is not set")
        weighted = [entry for entry in self.mixture if entry.weight is not None]
        if weighted and len(weighted) < len(self.mixture):
            raise ValueError("give every source of mixture a weight, or none")
        if self.streaming and self.validation_fraction:
            raise ValueError(
                "validation_fraction needs all rows at once, which streaming does not have; give "
                "validation rows, or slices in splits"
            )
        if self.validation and self.validation_fraction:
            raise ValueError("give at most one of validation and validation_fraction")
        return self

    def files(self, split: Split) -> tuple[str, ...]:
        """The files that the recipe names for a split."""
        named = (self.train, self.validation, self.test)
        return names_of_paths(dict(zip(SPLITS, named, strict=True))[split])

    def sample_limit(self, split: Split) -> int | None:
        """How many rows of `split` to use; None for all."""
        limits = (self.max_train_samples, self.max_validation_samples, self.max_test_samples)
        return dict(zip(SPLITS, limits, strict=True))[split]


def names_of_paths(paths: str | tuple[str, ...] | None) -> tuple[str, ...]:
    """One name or several, as several."""
    return (paths,) if isinstance(paths, str) else paths or ()
