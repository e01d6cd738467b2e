"""What both streams are made of: MLP, stochastic depth, attention of all tokens, and checkpointing of blocks."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class Mlp(nn.Sequential):
    """Linear, exact GELU, Linear: (..., width) -> (..., width)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))


class StochasticDepth(nn.Module):
    """Drops the residual branch of a sample with probability `rate` in training (Huang et al. 2016, 1603.09382)."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, branch: Tensor) -> Tensor:
        """branch: (B, ...). Returns the same shape, divided by the share of samples that are kept."""
        if not self.training or not self.rate:
            return branch
        kept = torch.empty(branch.shape[:1], dtype=branch.dtype, device=branch.device).bernoulli_(1 - self.rate)
        return branch * (kept / (1 - self.rate)).view(-1, *[1] * (branch.ndim - 1))


class SelfAttention(nn.Module):
    """Attention of every token to every token, without mask: (B, N, width) -> (B, N, width)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.projection = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens: (B, N, width). Returns the same shape."""
        batch, count, width = tokens.shape
        qkv = self.qkv(tokens).view(batch, count, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(query, key, value)
        projected: Tensor = self.projection(attended.transpose(1, 2).reshape(batch, count, width))
        return projected


class TransformerBlock(nn.Module):
    """A pre-norm block: attention of all tokens, then an MLP, both residual."""

    def __init__(self, width: int, heads: int, mlp_ratio: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width, eps=1e-6)
        self.attention = SelfAttention(width, heads)
        self.mlp_norm = nn.LayerNorm(width, eps=1e-6)
        self.mlp = Mlp(width, mlp_ratio * width)

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens: (B, N, width). Returns the same shape."""
        tokens = tokens + self.attention(self.attention_norm(tokens))
        result: Tensor = tokens + self.mlp(self.mlp_norm(tokens))
        return result


def run_block(block: Callable[..., Tensor], checkpointing: bool, *inputs: Tensor | None) -> Tensor:
    """The block's result; with checkpointing its inner values are computed again in the backward pass, not kept."""
    if checkpointing and torch.is_grad_enabled():
        result: Tensor = checkpoint(block, *inputs, use_reentrant=False)
        return result
    return block(*inputs)


def initialise(module: nn.Module) -> None:
    """Start values for training: Linear weights normal with sd 0.02 cut at 2, their biases 0."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.trunc_normal_(part.weight, std=0.02)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
