"""Examples become one text each, of which a decoder learns the completion."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from peftune.data.chat import chat_template_text, render_chats
from peftune.data.encoders.job import Encoding
from peftune.data.examples import Example
from peftune.data.overlong import TokenizedRow, shortened, windows
from peftune.data.rendering import Rendered, render_plain
from peftune.data.rows import IGNORED, EncodedRow, Fault, Outcome
from peftune.data.section import DataSection

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def encode(examples: Sequence[Example], job: Encoding) -> list[Outcome]:
    """Tokenise examples and apply `data.overlong`, keeping their order.

    Prompt and completion are tokenised once, as one text: a token is learnt when its characters
    reach beyond the prompt's end, so the seam cannot differ from what the tokenizer makes of plain
    text. The end-of-sequence token follows and is learnt, unless the row ends in it already; in
    chat format the template's own end of turn takes its place. A start token that the tokenizer
    adds is kept and not learnt. Plain text is learnt whole. Raises DataError for a template that
    cannot be used.
    """
    if not examples:
        return []
    unknown = job.tokenizer.unk_token_id
    return [
        _outcome(row, job.section, unknown)
        for row in _tokenize(examples, job.tokenizer, job.section)
    ]


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


def _outcome(row: TokenizedRow, section: DataSection, unknown_id: int | None) -> Outcome:
    parts, changed = _fitted(row, section)
    fault: Fault | None = None
    # The end token alone is no completion, and no token at all is nothing to learn.
    if row.learnt_from > len(row.ids) - (2 if row.prompt_ids else 1):
        parts, fault = (), "no_target"
    elif not parts and section.overlong != "drop":
        fault = "overlong"
    return Outcome(
        row=row.row,
        rows=parts,
        tokens=len(row.ids),
        targets=len(row.ids) - row.learnt_from,
        kept=sum(len(part.input_ids) for part in parts),
        fault=fault,
        changed=changed,
        end_id=row.ids[-1],
        unknown=row.ids.count(unknown_id) if unknown_id is not None else 0,
    )


def _fitted(row: TokenizedRow, section: DataSection) -> tuple[tuple[EncodedRow, ...], bool]:
    """What the policy makes of a row, and whether it had to; nothing when the row cannot be kept."""
    if len(row.ids) <= section.max_length:
        return (_encoded(row, 0, len(row.ids)),), False
    if section.overlong == "split":
        ranges = windows(len(row.ids), section.max_length)
        return tuple(_encoded(row, start, end) for start, end in ranges), True
    if section.overlong == "truncate_prompt":
        short = shortened(row, section.max_length)
        return ((_encoded(short, 0, len(short.ids)),) if short else ()), True
    return (), True


def _encoded(row: TokenizedRow, start: int, end: int) -> EncodedRow:
    ids = row.ids[start:end]
    ignored = min(max(row.learnt_from - start, 1), len(ids))
    return EncodedRow(ids, (IGNORED,) * ignored + ids[ignored:], row.prompt_ids, row.row)
