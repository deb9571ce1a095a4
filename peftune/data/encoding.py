"""Examples become token ids and labels, with every over-long row accounted for."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from peftune.data.chat import chat_template_text, render_chats
from peftune.data.examples import Example
from peftune.data.overlong import TokenizedRow, shortened, windows
from peftune.data.rendering import Rendered, render_plain
from peftune.data.section import DataSection, Split
from peftune.errors import DataError, ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

IGNORED = -100
"""The label of a token that is not learnt; torch.nn.functional.cross_entropy skips it too."""
ROWS_AT_ONCE = 1024


@dataclass(frozen=True)
class EncodedRow:
    """One row for the model."""

    input_ids: tuple[int, ...]
    labels: tuple[float, ...]
    """What is learnt; -100 where nothing is. Causal: one for each of `input_ids`, and never one at
    position 0. Seq2seq: the target's tokens. Labels: the class, 0 or 1 for each label, or the value."""
    prompt_ids: tuple[int, ...]
    """What generation starts from; empty for plain text."""
    row: int
    """Position in the source of the split, from 0; windows of one row share it."""
    token_type_ids: tuple[int, ...] = ()
    """Which of two texts a token belongs to, for tokenizers that tell."""


@dataclass(frozen=True)
class EncodingReport:
    """What encoding did to the rows of one split."""

    split: Split
    examples: int
    rows: int
    """Encoded rows: examples less dropped ones, plus additional windows."""
    dropped: int
    truncated: int
    windows: int
    """Rows that came out of splitting over-long ones."""
    learnt_tokens: int
    total_tokens: int
    longest: int
    """Tokens of the longest example before any policy."""
    end_ids: tuple[int, ...]
    """Tokens that close a row: the end of sequence, or the chat template's end of turn."""
    learnt: str = "tokens"
    """What `learnt_tokens` counts."""

    def __str__(self) -> str:
        policies = (
            ("dropped", self.dropped),
            ("with a shortened prompt", self.truncated),
            ("windows of longer rows", self.windows),
        )
        changes = "".join(f", {count:,} {what}" for what, count in policies if count)
        return (
            f"{self.split}: {self.rows:,} rows{changes}; {self._learnt()}; "
            f"longest row {self.longest:,} tokens"
        )

    def _learnt(self) -> str:
        if self.learnt == "tokens":
            return f"{self.learnt_tokens:,} of {self.total_tokens:,} tokens are learnt"
        return f"{self.learnt_tokens:,} {self.learnt} to learn from {self.total_tokens:,} tokens"


def encode(
    examples: Sequence[Example],
    tokenizer: "PreTrainedTokenizerFast",
    section: DataSection,
    split: Split,
) -> tuple[list[EncodedRow], EncodingReport]:
    """Tokenise the examples of a split and apply `data.overlong`, keeping their order.

    Prompt and completion are tokenised once, as one text: a token is learnt when its characters
    reach beyond the prompt's end, so the seam cannot differ from what the tokenizer makes of plain
    text. The end-of-sequence token follows and is learnt, unless the row ends in it already; in
    chat format the template's own end of turn takes its place. A start token that the tokenizer
    adds is kept and not learnt. Plain text is learnt whole.

    Raises ModelError for a tokenizer that cannot do this and DataError when rows are too long,
    when nothing is left to train on, or when a completion has no tokens.
    """
    _check_tokenizer(tokenizer)
    tokenized, parts = [], []
    for start in range(0, len(examples), ROWS_AT_ONCE):
        for row in _tokenize(examples[start : start + ROWS_AT_ONCE], tokenizer, section):
            parts.append(_fitted(row, section))
            # The spans of a whole split would take several times the memory of its ids.
            tokenized.append(replace(row, spans=(), prompt_spans=()))
    _require_targets(tokenized, split)
    _check_overlong(tokenized, parts, section, split)
    rows = [part for fitted in parts for part in fitted]
    require_kept(rows, len(tokenized), section, split)
    return rows, _report(tokenized, parts, section, split)


def require_kept(
    kept: Sequence[EncodedRow], examples: int, section: DataSection, split: Split
) -> None:
    """Raise DataError when a policy has left none of the examples."""
    if examples and not kept:
        raise DataError(
            f"data.overlong: drop removed all {examples:,} {split} rows; each is longer than "
            f"data.max_length: {section.max_length}."
        )


def _check_tokenizer(tokenizer: "PreTrainedTokenizerFast") -> None:
    if not tokenizer.is_fast:
        raise ModelError(
            "model.model_name_or_path: the tokenizer has no fast version (tokenizer.json), which "
            "tells where in the text a token stands."
        )
    if tokenizer.eos_token_id is None:
        raise ModelError(
            "model.model_name_or_path: the tokenizer names no eos_token, so a completion could not "
            "be taught to end."
        )


def _tokenize(
    examples: Sequence[Example], tokenizer: "PreTrainedTokenizerFast", section: DataSection
) -> Iterator[TokenizedRow]:
    template = chat_template_text(section, tokenizer)
    if template is None:
        rendered = [render_plain(example) for example in examples]
        end_tokens = {tokenizer.eos_token_id}
    else:
        rendered = render_chats(examples, tokenizer, template)
        added = tokenizer.added_tokens_decoder
        end_tokens = {token_id for token_id, token in added.items() if token.special}
    # A chat template writes the start token itself.
    plain = template is None
    texts = _call(tokenizer, [row.text for row in rendered], plain)
    prompts = _call(tokenizer, [row.prompt for row in rendered], plain)
    for index, row in enumerate(rendered):
        yield _tokenized_row(row, texts[index], prompts[index], end_tokens, tokenizer.eos_token_id)


def _call(tokenizer: "PreTrainedTokenizerFast", texts: list[str], special: bool) -> Any:
    """Ids, character spans and the tokenizer's own additions, as one `Encoding` per text."""
    return tokenizer(texts, add_special_tokens=special, verbose=False).encodings


def _tokenized_row(
    row: Rendered, text: Any, prompt: Any, end_tokens: set[int], eos_token_id: int
) -> TokenizedRow:
    ids, spans = list(text.ids), list(text.offsets)
    start = _added_in_front(text)
    reaching = (i for i in range(start, len(ids)) if spans[i][1] > row.learnt_from)
    first = next(reaching, len(ids))
    if not ids or ids[-1] not in end_tokens:
        ids.append(eos_token_id)
        spans.append((len(row.text), len(row.text)))
    prompt_length = len(prompt.ids) - _added_behind(prompt) if row.prompt else 0
    return TokenizedRow(
        row=row.row,
        ids=tuple(ids),
        spans=tuple(spans),
        learnt_from=max(first, 1),
        prompt_ids=tuple(prompt.ids[:prompt_length]),
        prompt_spans=tuple(prompt.offsets[:prompt_length]),
        fields=row.fields,
    )


def _added_in_front(encoding: Any) -> int:
    """How many tokens the tokenizer put before the text, as a rule none or the start token."""
    return next((i for i, added in enumerate(encoding.special_tokens_mask) if not added), 0)


def _added_behind(encoding: Any) -> int:
    mask = encoding.special_tokens_mask
    return next((i for i, added in enumerate(reversed(mask)) if not added), 0)


def _require_targets(rows: Sequence[TokenizedRow], split: Split) -> None:
    """The end token alone is no completion, and no token at all is nothing to learn."""
    empty = [
        row.row for row in rows if row.learnt_from > len(row.ids) - (2 if row.prompt_ids else 1)
    ]
    if empty:
        raise DataError(
            f"data.columns: the completion has no tokens in {len(empty):,} of {len(rows):,} "
            f"{split} rows; the first is row {empty[0] + 1}. This tokenizer drops its characters."
        )


def _fitted(row: TokenizedRow, section: DataSection) -> list[EncodedRow]:
    """What the policy makes of a row; nothing when the row is dropped or cannot be kept."""
    if len(row.ids) <= section.max_length:
        return [_encoded(row, 0, len(row.ids))]
    if section.overlong == "split":
        ranges = windows(len(row.ids), section.max_length)
        return [_encoded(row, start, end) for start, end in ranges]
    if section.overlong == "truncate_prompt":
        short = shortened(row, section.max_length)
        return [_encoded(short, 0, len(short.ids))] if short else []
    return []


def _encoded(row: TokenizedRow, start: int, end: int) -> EncodedRow:
    ids = row.ids[start:end]
    ignored = min(max(row.learnt_from - start, 1), len(ids))
    return EncodedRow(ids, (IGNORED,) * ignored + ids[ignored:], row.prompt_ids, row.row)


def _check_overlong(
    rows: Sequence[TokenizedRow],
    parts: Sequence[list[EncodedRow]],
    section: DataSection,
    split: Split,
) -> None:
    if section.overlong in ("drop", "split"):
        return
    lost = [row for row, fitted in zip(rows, parts, strict=True) if not fitted]
    if not lost:
        return
    longest = max(lost, key=lambda row: len(row.ids))
    which = f"{len(lost):,} of {len(rows):,} {split} rows"
    if section.overlong == "truncate_prompt":
        raise DataError(
            f"data.overlong: truncate_prompt cannot bring {which} down to data.max_length: "
            f"{section.max_length} without touching the template or the completion; the longest is "
            f"row {longest.row + 1} with {len(longest.ids):,} tokens, {_targets(longest):,} of "
            "them learnt. Raise data.max_length, or set data.overlong: drop."
        )
    other = "truncate_prompt" if longest.prompt_ids else "split"
    raise DataError(
        f"data.max_length: {which} are longer than {section.max_length} tokens; the longest is row "
        f"{longest.row + 1} with {len(longest.ids):,}. Raise data.max_length, or set "
        f"data.overlong: drop or {other}."
    )


def _targets(row: TokenizedRow) -> int:
    return len(row.ids) - row.learnt_from


def _report(
    rows: Sequence[TokenizedRow],
    parts: Sequence[list[EncodedRow]],
    section: DataSection,
    split: Split,
) -> EncodingReport:
    changed = [
        len(fitted)
        for row, fitted in zip(rows, parts, strict=True)
        if len(row.ids) > section.max_length
    ]
    kept = [part for fitted in parts for part in fitted]
    return EncodingReport(
        split=split,
        examples=len(rows),
        rows=len(kept),
        dropped=sum(count == 0 for count in changed),
        truncated=sum(changed) if section.overlong == "truncate_prompt" else 0,
        windows=sum(changed) if section.overlong == "split" else 0,
        learnt_tokens=sum(label != IGNORED for part in kept for label in part.labels),
        total_tokens=sum(len(part.input_ids) for part in kept),
        longest=max((len(row.ids) for row in rows), default=0),
        end_ids=tuple(sorted({row.ids[-1] for row in rows})),
    )
