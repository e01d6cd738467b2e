"""The EnMAP stream: one transformer whose tokens are pixels, one whose tokens are bands, joined at 10 m."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from h2crop_data.training.model.attention import TransformerBlock, initialise, run_block
from h2crop_data.training.model.config import COARSE_STEP, HyperspectralConfig, TransformerConfig


class SpatialTransformer(nn.Module):
    """Every pixel is a token of all its bands."""

    positions: Tensor

    def __init__(self, config: HyperspectralConfig, coarse: int) -> None:
        super().__init__()
        width = config.spatial_width
        self.embedding = nn.Conv2d(config.bands, width, 1)
        self.register_buffer("positions", sinusoid_positions(coarse**2, width), persistent=False)
        self.blocks = transformer_blocks(width, config.spatial)
        self.upsampling = Upsampling(width, config.features)
        initialise(self)

    def forward(self, enmap: Tensor, checkpointing: bool) -> Tensor:
        """enmap: (B, bands, h, w). Returns (B, features, 3 h, 3 w)."""
        tokens = self.embedding(enmap).flatten(2).transpose(1, 2) + self.positions
        for block in self.blocks:
            tokens = run_block(block, checkpointing, tokens)
        fine: Tensor = self.upsampling(tokens.transpose(1, 2).unflatten(2, enmap.shape[-2:]))
        return fine


class SpectralTransformer(nn.Module):
    """Every band is a token of the means of its cells."""

    positions: Tensor

    def __init__(self, config: HyperspectralConfig, coarse: int) -> None:
        super().__init__()
        width = (coarse // config.cell) ** 2
        self.pooling = nn.AvgPool2d(config.cell)
        self.register_buffer("positions", sinusoid_positions(config.bands, width), persistent=False)
        self.blocks = transformer_blocks(width, config.spectral)
        self.expansion = nn.Linear(width, coarse**2)
        self.upsampling = Upsampling(config.bands, config.features)
        initialise(self)

    def forward(self, enmap: Tensor, checkpointing: bool) -> Tensor:
        """enmap: (B, bands, h, w). Returns (B, features, 3 h, 3 w)."""
        tokens = self.pooling(enmap).flatten(2) + self.positions
        for block in self.blocks:
            tokens = run_block(block, checkpointing, tokens)
        fine: Tensor = self.upsampling(self.expansion(tokens).unflatten(2, enmap.shape[-2:]))
        return fine


class Upsampling(nn.Sequential):
    """From 30 m to 10 m: (B, C, h, w) -> (B, features, 3 h, 3 w), a 3 x 3 convolution and PixelShuffle."""

    def __init__(self, channels: int, features: int) -> None:
        super().__init__(
            nn.Conv2d(channels, features * COARSE_STEP**2, 3, padding=1),
            nn.PixelShuffle(COARSE_STEP),
        )


class HyperspectralStream(nn.Module):
    """One EnMAP image to features at 10 m."""

    def __init__(self, config: HyperspectralConfig, coarse: int) -> None:
        super().__init__()
        self.checkpointing = False
        self.spatial = SpatialTransformer(config, coarse)
        self.spectral = SpectralTransformer(config, coarse)
        self.fusion = nn.Sequential(
            nn.Conv2d(2 * config.features, config.features, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(config.features, config.features, 3, padding=1),
        )

    def forward(self, enmap: Tensor) -> Tensor:
        """enmap: (B, bands, h, w) float. Returns (B, features, 3 h, 3 w)."""
        both = [self.spatial(enmap, self.checkpointing), self.spectral(enmap, self.checkpointing)]
        fused: Tensor = self.fusion(torch.cat(both, 1))
        return fused


def transformer_blocks(width: int, config: TransformerConfig) -> nn.ModuleList:
    """The blocks of a transformer."""
    return nn.ModuleList(TransformerBlock(width, config.heads, config.mlp_ratio) for _ in range(config.depth))


def sinusoid_positions(count: int, width: int) -> Tensor:
    """What is added to tokens for their place: (count, width) float32.

    Channel 2 i is sin(place / 10000^(2 i / width)), channel 2 i + 1 its cosine (Vaswani et al. 2017, 1706.03762).
    """
    rates = 10000.0 ** (-2 * (np.arange(width) // 2) / width)
    angles = np.arange(count)[:, None] * rates
    return torch.from_numpy(np.where(np.arange(width) % 2, np.cos(angles), np.sin(angles)).astype(np.float32))
