"""Examples become a source that an encoder reads and a target that a decoder learns."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from peftune.data.encoding import EncodedRow, EncodingReport, require_kept
from peftune.data.examples import Example
from peftune.data.overlong import TokenizedRow, shortened
from peftune.data.section import DataSection, Split
from peftune.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


@dataclass(frozen=True)
class Pair:
    """Both sides of an example as tokens, before any policy."""

    source: TokenizedRow
    target: tuple[int, ...]

    @property
    def longest(self) -> int:
        return max(len(self.source.ids), len(self.target))


def encode_seq2seq(
    examples: Sequence[Example],
    tokenizer: "PreTrainedTokenizerFast",
    section: DataSection,
    split: Split,
) -> tuple[list[EncodedRow], EncodingReport]:
    """Tokenise prompts as sources and completions as targets, and apply `data.overlong`.

    Each side may have `data.max_length` tokens. The tokenizer adds its own tokens on both sides; an
    end token is appended to a target that would have none. `truncate_prompt` shortens the source
    and never the target. Raises DataError when rows are too long or a target has no tokens.
    """
    pairs = _tokenized(examples, tokenizer)
    _require_targets(pairs, tokenizer, split)
    rows = [_fitted(pair, section) for pair in pairs]
    _check_overlong(pairs, rows, section, split)
    kept = [row for row in rows if row is not None]
    require_kept(kept, len(pairs), section, split)
    changed = sum(pair.longest > section.max_length for pair in pairs)
    return kept, EncodingReport(
        split=split,
        examples=len(pairs),
        rows=len(kept),
        dropped=len(pairs) - len(kept),
        truncated=changed if section.overlong == "truncate_prompt" else 0,
        windows=0,
        learnt_tokens=sum(len(row.labels) for row in kept),
        total_tokens=sum(len(row.input_ids) + len(row.labels) for row in kept),
        longest=max((pair.longest for pair in pairs), default=0),
        end_ids=(tokenizer.eos_token_id,) if pairs else (),
    )


def _tokenized(examples: Sequence[Example], tokenizer: "PreTrainedTokenizerFast") -> list[Pair]:
    if not examples:
        return []
    sources = tokenizer([example.prompt for example in examples], verbose=False).encodings
    # Some tokenizers write other tokens around a target, such as its language.
    targets = tokenizer(text_target=[example.completion for example in examples], verbose=False)
    return [
        Pair(_source(example, source), _ended(target, tokenizer.eos_token_id))
        for example, source, target in zip(examples, sources, targets["input_ids"], strict=True)
    ]


def _source(example: Example, encoding: Any) -> TokenizedRow:
    return TokenizedRow(
        row=example.row,
        ids=tuple(encoding.ids),
        spans=tuple(encoding.offsets),
        learnt_from=len(encoding.ids),
        prompt_ids=(),
        prompt_spans=(),
        fields=example.fields,
    )


def _ended(target: Sequence[int], eos_token_id: int) -> tuple[int, ...]:
    return tuple(target) if eos_token_id in target else (*target, eos_token_id)


def _require_targets(
    pairs: Sequence[Pair], tokenizer: "PreTrainedTokenizerFast", split: Split
) -> None:
    special = set(tokenizer.all_special_ids)
    empty = [pair.source.row for pair in pairs if set(pair.target) <= special]
    if empty:
        raise DataError(
            f"data.columns: the completion has no tokens in {len(empty):,} of {len(pairs):,} "
            f"{split} rows; the first is row {empty[0] + 1}. This tokenizer drops its characters."
        )


def _fitted(pair: Pair, section: DataSection) -> EncodedRow | None:
    source: TokenizedRow | None = pair.source
    if len(pair.target) > section.max_length:
        return None
    if len(pair.source.ids) > section.max_length:
        truncates = section.overlong == "truncate_prompt"
        source = shortened(pair.source, section.max_length) if truncates else None
    return EncodedRow(source.ids, pair.target, source.ids, source.row) if source else None


def _check_overlong(
    pairs: Sequence[Pair], rows: Sequence[EncodedRow | None], section: DataSection, split: Split
) -> None:
    lost = [pair for pair, row in zip(pairs, rows, strict=True) if row is None]
    if not lost or section.overlong == "drop":
        return
    longest = max(lost, key=lambda pair: pair.longest)
    way_out = "drop" if section.overlong == "truncate_prompt" else "drop or truncate_prompt"
    raise DataError(
        f"data.max_length: {len(lost):,} of {len(pairs):,} {split} rows have more than "
        f"{section.max_length} tokens in their prompt or completion; the longest is row "
        f"{longest.source.row + 1} with {len(longest.source.ids):,} and {len(longest.target):,}. "
        f"Raise data.max_length, or set data.overlong: {way_out}."
    )
