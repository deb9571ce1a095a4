"""Examples become a source that an encoder reads and a target that a decoder learns."""

from collections.abc import Sequence
from typing import Any

from peftune.data.encoders.job import Encoding
from peftune.data.examples import Example
from peftune.data.overlong import TokenizedRow, shortened
from peftune.data.rows import IGNORED, EncodedRow, Fault, Outcome
from peftune.data.section import DataSection


def encode(examples: Sequence[Example], job: Encoding) -> list[Outcome]:
    """Tokenise prompts as sources and completions as targets, and apply `data.overlong`.

    Each side may have `data.max_length` tokens. The tokenizer adds its own tokens on both sides; an
    end token is appended to a target that would have none. `truncate_prompt` shortens the source
    and never the target.
    """
    if not examples:
        return []
    tokenizer = job.tokenizer
    sources = tokenizer([example.prompt for example in examples], verbose=False).encodings
    # Some tokenizers write other tokens around a target, such as its language.
    targets = tokenizer(text_target=[example.completion for example in examples], verbose=False)
    return [
        _outcome(_source(example, source), _ended(target, tokenizer.eos_token_id), job)
        for example, source, target in zip(examples, sources, targets["input_ids"], strict=True)
    ]


def _source(example: Example, encoding: Any) -> TokenizedRow:
    return TokenizedRow(
        row=example.row,
        ids=tuple(encoding.ids),
        spans=tuple(encoding.offsets),
        labels=(IGNORED,) * len(encoding.ids),
        prompt_ids=(),
        prompt_spans=(),
        fields=example.fields,
    )


def _ended(target: Sequence[int], eos_token_id: int) -> tuple[int, ...]:
    return tuple(target) if eos_token_id in target else (*target, eos_token_id)


def _outcome(source: TokenizedRow, target: tuple[int, ...], job: Encoding) -> Outcome:
    section, longest = job.section, max(len(source.ids), len(target))
    row = _fitted(source, target, section)
    fault: Fault | None = None
    if set(target) <= set(job.tokenizer.all_special_ids):
        row, fault = None, "no_target"
    elif row is None and section.overlong != "drop":
        fault = "overlong"
    unknown = job.unknown_id
    return Outcome(
        row=source.row,
        rows=(row,) if row else (),
        tokens=longest,
        targets=len(target),
        kept=len(row.input_ids) + len(row.labels) if row else 0,
        fault=fault,
        changed=longest > section.max_length,
        end_id=job.end_id,
        unknown=(*source.ids, *target).count(unknown) if unknown is not None else 0,
    )


def _fitted(
    source: TokenizedRow, target: tuple[int, ...], section: DataSection
) -> EncodedRow | None:
    kept: TokenizedRow | None = source
    if len(target) > section.max_length:
        return None
    if len(source.ids) > section.max_length:
        truncates = section.overlong == "truncate_prompt"
        kept = shortened(source, section.max_length) if truncates else None
    return EncodedRow(kept.ids, target, kept.ids, kept.row) if kept else None
