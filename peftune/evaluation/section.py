"""The recipe's `evaluation:` section."""

from pydantic import Field

from peftune.section import Section


class EvaluationSection(Section):
    """How the base and the adapted model are compared on the test split."""

    max_new_tokens: int = Field(default=64, ge=1)
    """Longest generated completion in tokens."""

    num_beams: int = Field(default=1, ge=1)
    """Beams of the search; 1 is greedy decoding."""

    max_answer_tokens: int = Field(default=30, ge=1)
    """Longest stretch of a context that is given as an answer, in tokens (task `extract`)."""

    shown_samples: int = Field(default=3, ge=0)
    """Test rows printed with the outputs of both models."""
