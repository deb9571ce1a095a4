"""Extension point: one file for each way in which examples become tokens and targets.

An encoder is a pure function of a chunk of examples, so that chunks can be encoded by any process in
any order. It answers with one Outcome for each example and raises only for a tokenizer or template
that cannot be used at all.
"""

from collections.abc import Callable, Sequence

from peftune.data.encoders import causal, hidden, labelled, seq2seq, spans, tagged
from peftune.data.encoders.job import Encoding
from peftune.data.examples import Example
from peftune.data.rows import Outcome
from peftune.objectives import ObjectiveName

ENCODERS: dict[ObjectiveName, Callable[[Sequence[Example], Encoding], list[Outcome]]] = {
    "causal": causal.encode,
    "seq2seq": seq2seq.encode,
    "masked": hidden.encode,
    "corrupted": hidden.encode,
    "label": labelled.encode,
    "labels": labelled.encode,
    "value": labelled.encode,
    "tags": tagged.encode,
    "span": spans.encode,
}

__all__ = ["ENCODERS", "Encoding"]
