"""From the maps of both streams to logits: the neck, and one head a tier."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from h2crop_data.training.model.config import ModelConfig


class ConvolutionPair(nn.Sequential):
    """Convolution 3 x 3, batch norm, ReLU, convolution 3 x 3: (B, channels, H, W) -> (B, result, H, W)."""

    def __init__(self, channels: int, hidden: int, result: int) -> None:
        super().__init__(
            nn.Conv2d(channels, hidden, 3, padding=1),
            nn.BatchNorm2d(hidden),
            nn.ReLU(),
            nn.Conv2d(hidden, result, 3, padding=1),
        )


class Neck(nn.Module):
    """Brings the Sentinel-2 maps to 10 m, step by step with the finer maps, and joins the EnMAP features."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        widths, frames = config.sentinel2.widths, config.frames
        self.patch = config.patch
        # Coarse to fine: stage 3 to the size of skip 2, 1, 0.
        self.fusions = nn.ModuleList(
            ConvolutionPair(widths[stage] + widths[stage - 1] * frames[stage - 1], widths[stage], widths[stage - 1])
            for stage in (3, 2, 1)
        )
        self.refinement = ConvolutionPair(widths[0], widths[0], widths[0])
        self.enmap_refinement: ConvolutionPair | None = None
        if config.enmap:
            self.enmap_refinement = ConvolutionPair(*[config.enmap.features] * 3)

    def forward(self, last: Tensor, skips: list[Tensor], enmap: Tensor | None) -> Tensor:
        """last, skips: as the Sentinel-2 stream gives them. enmap: (B, features, H, W), or None without EnMAP.

        Returns (B, C + features, H, W), or (B, C, H, W) without EnMAP.
        """
        for fusion, skip in zip(self.fusions, reversed(skips), strict=True):
            last = fusion(torch.cat([resized(last, skip.shape[-2]), skip], 1))
        features = resized(self.refinement(last), self.patch)
        if self.enmap_refinement is None or enmap is None:
            return features
        return torch.cat([features, self.enmap_refinement(enmap)], 1)


class Heads(nn.Module):
    """The tiers, coarsest first; each sees the logits of the tier before it and, where used, the prior of its own."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        features = config.sentinel2.width + (config.enmap.features if config.enmap else 0)
        self.counts = {tier: config.classes[tier] + 1 for tier in config.tiers}
        self.tiers = nn.ModuleDict()
        above = 0
        for tier, classes in self.counts.items():
            channels = features + above + (classes if config.prior else 0)
            self.tiers[str(tier)] = nn.Sequential(
                nn.Conv2d(channels, channels // 2, 3, padding=1),
                nn.ReLU(),
                nn.Conv2d(channels // 2, classes, 1),
            )
            above = classes

    def forward(self, features: Tensor, prior: Tensor | None) -> dict[int, Tensor]:
        """features: (B, F, H, W). prior: (B, 4, H, W) int64, or None for a model without.

        Returns tier -> logits (B, classes + 1, H, W); class 0 is background.
        """
        logits: dict[int, Tensor] = {}
        above: list[Tensor] = []
        for tier, classes in self.counts.items():
            inputs = [features, *above]
            if prior is not None:
                inputs.append(one_hot(prior[:, tier - 1], classes, features.dtype))
            logits[tier] = self.tiers[str(tier)](torch.cat(inputs, 1))
            above = [logits[tier]]
        return logits


def one_hot(classes: Tensor, count: int, dtype: torch.dtype) -> Tensor:
    """(B, H, W) integers -> (B, count, H, W) of 0 and 1; 255 (unknown) and unknown classes are all zeros."""
    numbers = torch.arange(count, device=classes.device).view(-1, 1, 1)
    return (classes.unsqueeze(1) == numbers).to(dtype)


def resized(images: Tensor, size: int) -> Tensor:
    """(B, C, h, w) -> (B, C, size, size), bilinear between pixel centres."""
    return F.interpolate(images, size=(size, size), mode="bilinear", align_corners=False)
