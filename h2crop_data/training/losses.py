"""The training loss: cross-entropy at each tier, over the pixels whose class is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from h2crop_data.constants import UNKNOWN


def hierarchical_loss(logits: Mapping[int, Tensor], label: Tensor, ignored: Sequence[int] = (UNKNOWN,)) -> Tensor:
    """The sum over tiers of `tier_losses`: a scalar float32, the loss of the published training."""
    return torch.stack(list(tier_losses(logits, label, ignored).values())).sum()


def tier_losses(logits: Mapping[int, Tensor], label: Tensor, ignored: Sequence[int] = (UNKNOWN,)) -> dict[int, Tensor]:
    """Mean cross-entropy of each tier over the pixels of the whole batch whose label is not ignored.

    logits: tier (1..4) -> (B, N + 1, H, W) of any float dtype, class 0 first; computed in float32.
    label: (B, 4, H, W) of integers, class ids 0..N of tier k at index k - 1.
    ignored: labels that do not count; the published labels also have -1.
    Gives tier -> scalar float32. Where no pixel is left the loss is 0, and so is its gradient.
    """
    losses = {}
    for tier, of_tier in logits.items():
        target = label[:, tier - 1].long()
        known = torch.ones_like(target, dtype=torch.bool)
        for value in ignored:
            known &= target != value
        target = target.masked_fill(~known, UNKNOWN)
        total = F.cross_entropy(of_tier.float(), target, ignore_index=UNKNOWN, reduction="sum")
        losses[tier] = total / known.sum().clamp(min=1)
    return losses
