"""The recipe's `data:` section."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from peftune.data.rows import Fault
from peftune.section import Items, Section

Split = Literal["train", "validation", "test"]
TrainOn = Literal["assistant", "last", "completion", "all"]
Gate = Literal["invalid", Fault, "unknown_tokens", "duplicates", "overlap"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
DOC_STRIDE = 128


class DataSection(Section):
    """Where rows come from and how one row becomes a prompt and the completion to learn."""

    path: str | None = None
    """Hub id, a folder with train/validation/test files, or `embedded:dialogues`.
    Exactly one of `path` and `train`."""

    name: str | None = None
    """Configuration of a Hub data set (`path` only)."""

    revision: str | None = None
    """Branch, tag or commit of a Hub data set (`path` only)."""

    train: str | None = None
    """File with the training rows: .jsonl, .csv or .parquet."""

    validation: str | None = None
    """File with the validation rows; replaces the validation split of `path`."""

    test: str | None = None
    """File with the test rows; replaces the test split of `path`."""

    validation_fraction: float | None = Field(None, gt=0, lt=1)
    """Share of the training rows to set aside when there is no validation split."""

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

    source_language: str | None = None
    """Code of the prompt's language, for models that have codes (NLLB: `deu_Latn`, mBART:
    `de_DE`)."""

    target_language: str | None = None
    """Code of the completion's language, for models that have codes."""

    max_length: int = Field(1024, ge=8)
    """Longest row in tokens, prompt and completion together; for an encoder-decoder each of the
    two."""

    overlong: Literal["error", "drop", "truncate_prompt", "split"] = "error"
    """What happens to a longer row. `truncate_prompt` shortens the prompt's columns, or drops the
    oldest turns of a conversation, and never touches the completion; `split` cuts the rows of tasks
    `text` and `tag` into windows. Counts are always reported. Task `extract` always reads a long
    context in windows."""

    doc_stride: int = Field(DOC_STRIDE, ge=1)
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
        if (self.path is None) == (self.train is None):
            raise ValueError("give exactly one of path and train")
        if self.path is None and (self.name or self.revision):
            raise ValueError("name and revision belong to path, which is not set")
        if self.validation and self.validation_fraction:
            raise ValueError("give at most one of validation and validation_fraction")
        return self

    def sample_limit(self, split: Split) -> int | None:
        """How many rows of `split` to use; None for all."""
        limits = (self.max_train_samples, self.max_validation_samples, self.max_test_samples)
        return dict(zip(SPLITS, limits, strict=True))[split]
