"""What is added to the scores of rows that stand one after another: the widest row's serves all."""

import operator
from dataclasses import dataclass, field

import torch

MOST_HELD = 2**23
"""Numbers in the copies that layers share."""


@dataclass
class RowBias:
    """The bias that one layer after another is given, and the parts of it that belong to rows.

    torch's kernel copies a part in every layer, and again for its gradient, unless it stands in memory in
    one piece. Where layers are given the same bias they share a copy that does.
    """

    given: tuple[torch.Tensor | None, torch.Tensor | None, bool] = None, None, False
    whole: torch.Tensor | None = None
    """Added to the scores of the widest row, or where those count, (1, heads or 1, width, width)."""
    is_shared: bool = False
    parts: dict[tuple[int, int], torch.Tensor] = field(default_factory=dict)
    """Copies by the numbers of queries and keys."""

    def read(
        self, mask: torch.Tensor | None, position_bias: torch.Tensor | None, causal: bool
    ) -> torch.Tensor | None:
        """The `whole` of a layer that is given these."""
        given = mask, position_bias, causal
        self.is_shared = all(map(operator.is_, self.given, given))
        if not self.is_shared:
            self.given, self.whole, self.parts = given, _joined(*given), {}
        return self.whole

    def part(self, queries: int, keys: int) -> torch.Tensor | None:
        """What belongs to a row."""
        if self.whole is None:
            return None
        part = self.whole[..., :queries, :keys]
        held = sum(one.numel() for one in self.parts.values())
        if (
            self.is_shared
            and (queries, keys) not in self.parts
            and held + part.numel() <= MOST_HELD
        ):
            self.parts[queries, keys] = part.contiguous()
        return self.parts.get((queries, keys), part)


def _joined(
    mask: torch.Tensor | None, position_bias: torch.Tensor | None, causal: bool
) -> torch.Tensor | None:
    """A mask and a bias as one."""
    if position_bias is None or position_bias.numel() == 1:
        return mask
    if mask is None and causal:
        mask = torch.ones_like(position_bias[0, 0], dtype=torch.bool).tril()
    return position_bias if mask is None else position_bias.masked_fill(~mask, -torch.inf)
