"""How long a row may be for a model, by its configuration."""

from typing import Any

# They number positions from pad_token_id + 1, as fairseq did.
OFFSET_BY_PADDING = (
    "camembert",
    "data2vec-text",
    "ibert",
    "longformer",
    "luke",
    "mpnet",
    "roberta",
    "roberta-prelayernorm",
    "xlm-roberta",
    "xlm-roberta-xl",
    "xmod",
)


def positions(config: Any) -> int | None:
    """The most tokens that have a position; None for a model of relative positions only.

    T5, ALiBi and state space models name no limit, and DeBERTa-v3 has one that it does not use.
    """
    text = config.get_text_config(decoder=True).to_dict()
    limit: int | None = text.get("max_position_embeddings")
    if limit is None or text.get("position_biased_input") is False:
        return None
    if text["model_type"] in OFFSET_BY_PADDING:
        return limit - text["pad_token_id"] - 1
    return limit
