"""Examples become one text each, of which a decoder learns the completion or the answers."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import repeat
from typing import TYPE_CHECKING, Any

from peftune.data.chat import Refused, render_chat
from peftune.data.conversations import turns, without_oldest
from peftune.data.encoders.job import Encoding
from peftune.data.examples import Example
from peftune.data.overlong import TokenizedRow, shortened, windows
from peftune.data.rendering import Rendered, render_plain
from peftune.data.rows import IGNORED, EncodedRow, Fault, Outcome

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def encode(examples: Sequence[Example], job: Encoding) -> list[Outcome]:
    """Tokenise examples and apply `data.overlong`, keeping their order.

    Prompt and completion are tokenised once, as one text: a token is learnt when its characters
    reach beyond the prompt's end, so the seam cannot differ from what the tokenizer makes of plain
    text. The end-of-sequence token follows and is learnt, unless the row ends in it already; in
    chat format the template's own end of turn takes its place, at the end of every answer. A start
    token that the tokenizer adds is kept and not learnt. Plain text is learnt whole.
    """
    rendered = [_rendered(example, job) for example in examples]
    rows = _tokenized([one for one in rendered if isinstance(one, Rendered)], job)
    return [
        Outcome(one.row, (), 0, 0, fault=one.fault, reason=one.reason)
        if isinstance(one, Refused)
        else _outcome(next(rows), example, job, one.marked)
        for example, one in zip(examples, rendered, strict=True)
    ]


def _rendered(example: Example, job: Encoding) -> Rendered | Refused:
    if job.chat is None:
        return render_plain(example, whole=job.section.train_on == "all")
    return render_chat(example, job.chat, job.section.train_on or "assistant")


def _tokenized(rendered: Sequence[Rendered], job: Encoding) -> Iterator[TokenizedRow]:
    if not rendered:
        return
    tokenizer = job.tokenizer
    end_tokens = {tokenizer.eos_token_id}
    if job.chat is not None:
        end_tokens |= {tokenizer.convert_tokens_to_ids(token) for token in job.chat.control_tokens}
    # A chat template writes the start token itself.
    plain = job.chat is None
    texts = _call(tokenizer, [row.text for row in rendered], plain)
    prompts = repeat(None)
    if job.prompts:
        prompts = _call(tokenizer, [row.prompt for row in rendered], plain)
    for row, text, prompt in zip(rendered, texts, prompts, strict=False):
        yield _tokenized_row(row, text, prompt, end_tokens, job)


def _call(tokenizer: "PreTrainedTokenizerFast", texts: list[str], special: bool) -> Any:
    """Ids, character spans and the tokenizer's own additions, as one `Encoding` per text.

    The Rust tokenizer is called directly: the Python one would first copy everything to lists.
    """
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    return backend.encode_batch(texts, add_special_tokens=special)


def _tokenized_row(
    row: Rendered, text: Any, prompt: Any, end_tokens: set[int], job: Encoding
) -> TokenizedRow:
    ids, eos_token_id = text.ids, job.end_id
    # Spans cost as much as all the rest; only a row that must be shortened needs them.
    spans = text.offsets if len(ids) >= job.section.max_length else []
    labels = _labels(ids, text, row)
    if not ids or ids[-1] not in end_tokens:
        ids.append(eos_token_id)
        spans.append((len(row.text), len(row.text)))
        labels.append(eos_token_id)
    prompt_length = len(prompt.ids) - _added_behind(prompt) if prompt and row.prompt else 0
    return TokenizedRow(
        row=row.row,
        ids=tuple(ids),
        spans=tuple(spans),
        labels=(IGNORED, *labels[1:]),
        prompt_ids=tuple(prompt.ids[:prompt_length]) if prompt_length else (),
        prompt_spans=tuple(prompt.offsets[:prompt_length]) if prompt_length else (),
        fields=row.fields,
    )


def _labels(ids: list[int], text: Any, row: Rendered) -> list[int]:
    """The ids from the first to the last that reaches into each stretch to learn.

    What the tokenizer adds behind the text belongs to a stretch that ends there.
    """
    labels = [IGNORED] * len(ids)
    for begin, end in row.learnt:
        first = _token_at(text, begin, len(row.text))
        # Blanks may have spans without width, which hold no character.
        while first > 0 and (span := text.token_to_chars(first - 1)) and span[1] > begin:
            first -= 1
        stop = len(ids) if end == len(row.text) else _token_at(text, end, len(row.text))
        while stop > first and (span := text.token_to_chars(stop - 1)) and span[0] >= end:
            stop -= 1
        if stop < len(ids) and (span := text.token_to_chars(stop)) and span[0] < end:
            stop += 1
        labels[first:stop] = ids[first:stop]
    return labels


def _token_at(text: Any, position: int, end: int) -> int:
    """The token that holds the character at `position`, or the next one that some token holds.

    The number of tokens when there is none.
    """
    holding = (text.char_to_token(at) for at in range(position, end))
    return next((token for token in holding if token is not None), len(text))


def _added_behind(encoding: Any) -> int:
    mask = encoding.special_tokens_mask
    return next((i for i, added in enumerate(reversed(mask)) if not added), 0)


def _outcome(row: TokenizedRow, example: Example, job: Encoding, marked: bool) -> Outcome:
    asks = bool(example.prompt) or example.conversation is not None
    parts, changed = _fitted(row, example, job)
    unknown, targets = job.unknown_id, len(row.labels) - row.labels.count(IGNORED)
    fault: Fault | None = None
    # The end token alone is no completion, and no token at all is nothing to learn.
    if targets < (2 if asks else 1):
        parts, fault = (), "no_target"
    elif not parts and job.section.overlong != "drop":
        fault = "overlong"
    return Outcome(
        row=row.row,
        rows=parts,
        tokens=len(row.ids),
        targets=targets,
        kept=sum(len(part.input_ids) for part in parts),
        fault=fault,
        changed=changed,
        end_id=row.ids[-1],
        marked=marked,
        unknown=row.ids.count(unknown) if unknown is not None else 0,
    )


def _fitted(
    row: TokenizedRow, example: Example, job: Encoding
) -> tuple[tuple[EncodedRow, ...], bool]:
    """What the policy makes of a row, and whether it had to; nothing when the row cannot be kept."""
    limit, policy = job.section.max_length, job.section.overlong
    if len(row.ids) <= limit:
        return (_encoded(row, 0, len(row.ids)),), False
    if policy == "split":
        ranges = windows(len(row.ids), limit)
        return tuple(_encoded(row, start, end) for start, end in ranges), True
    if policy == "truncate_prompt":
        talks = example.conversation is not None
        short = _without_turns(example, job) if talks else shortened(row, limit)
        return ((_encoded(short, 0, len(short.ids)),) if short else ()), True
    return (), True


def _without_turns(example: Example, job: Encoding) -> TokenizedRow | None:
    """The row of a conversation without as many of its oldest turns as have to go."""
    assert example.conversation is not None
    whole = example.conversation

    def row(dropped: int) -> TokenizedRow | None:
        shorter = replace(example, conversation=without_oldest(whole, dropped))
        one = _rendered(shorter, job)
        return next(_tokenized([one], job)) if isinstance(one, Rendered) else None

    def fits(dropped: int) -> bool:
        found = row(dropped)
        return found is not None and len(found.ids) <= job.section.max_length

    counts = range(1, turns(whole))
    fewest = bisect_left(counts, True, key=fits)
    return row(counts[fewest]) if fewest < len(counts) else None


def _encoded(row: TokenizedRow, start: int, end: int) -> EncodedRow:
    # Nothing in a window could predict its first token.
    labels = (IGNORED, *row.labels[start + 1 : end])
    return EncodedRow(row.ids[start:end], labels, row.prompt_ids, row.row)
