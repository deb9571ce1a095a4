"""Whether the last layer of a model may compute first tokens alone: a small one of its class shows it."""

from copy import deepcopy

import torch
from transformers import PretrainedConfig, PreTrainedModel

from peftune.errors import ModelError
from peftune.model.documents import reading_of
from peftune.model.first_tokens import is_apart
from peftune.model.trial import real_numbers
from peftune.model.unpadding import attentions, stacks_of, unpad

IDS = ((3, 4, 5, 6), (6, 4, 0, 0), (5, 0, 0, 0))
"""Rows of unequal length; 0 is padding."""
VOCABULARY = 8


def may_narrow(model: PreTrainedModel) -> bool:
    """Whether what a model says of its texts is read of first tokens, and its code lets the last layer
    compute nothing else."""
    stacks = stacks_of(model)
    if len(stacks) != 1 or model.get_output_embeddings() is not None:
        return False
    found = attentions(stacks[0].layers[-1])
    return len(found) == 1 and is_apart(found[0]) and is_the_same(type(model), model.config)


def is_the_same(model_class: type[PreTrainedModel], config: PretrainedConfig) -> bool:
    """Whether one layer of random weights says the same with and without it."""
    ids = torch.tensor(IDS)
    batch = {"input_ids": ids, "attention_mask": (ids > 0).long()}
    with real_numbers(), torch.random.fork_rng([]):
        model = model_class(small(config)).eval()
        expected = model(**batch)[0]
        unpad(model, first_tokens=True)
        try:
            with reading_of(batch):
                found = model(**batch)[0]
        except ModelError:
            return False
        return torch.allclose(found, expected, rtol=1.0e-4, atol=1.0e-5)


def small(config: PretrainedConfig) -> PretrainedConfig:
    """The same but for one layer and a few words."""
    changed = deepcopy(config)
    changed.num_hidden_layers, changed.vocab_size = 1, VOCABULARY
    changed.pad_token_id = 0
    return changed
