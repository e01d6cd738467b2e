"""The dual-stream model: Sentinel-2 months and one EnMAP image to crops of four tiers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from h2crop_data.constants import TIERS
from h2crop_data.errors import UsageError
from h2crop_data.training.model.config import ModelConfig
from h2crop_data.training.model.decoder import Heads, Neck
from h2crop_data.training.model.hyperspectral import HyperspectralStream
from h2crop_data.training.model.swin import Sentinel2Stream


class CropModel(nn.Module):
    """The model of a configuration, with start values for training.

    `load_published` gives one with published weights, `from_pretrained` one that was saved.
    `checkpointing`: whether transformer blocks are computed again in the backward pass instead of being kept; less
    memory, a third more time, the same result.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.sentinel2 = Sentinel2Stream(config)
        self.enmap: HyperspectralStream | None = None
        self.absent_enmap: nn.Parameter | None = None
        if config.enmap:
            self.enmap = HyperspectralStream(config.enmap, config.coarse)
            if config.enmap.optional:
                self.absent_enmap = nn.Parameter(torch.zeros(config.enmap.features))
        self.neck = Neck(config)
        self.heads = Heads(config)

    def forward(
        self,
        s2: Tensor,
        enmap: Tensor | None = None,
        prior: Tensor | None = None,
        enmap_present: Tensor | None = None,
    ) -> dict[int, Tensor]:
        """Logits of each tier.

        s2: (B, T, bands, H, W) normalised, fill 0. enmap: (B, bands, H/3, W/3) normalised, fill 0. prior: (B, 4, H, W)
        int64, tiers 1..4; 255 = unknown and any other number that is no class are seen as no class. enmap_present:
        (B,) bool, for a configuration with `enmap.optional`: False where the learned token stands for EnMAP; by
        default False for samples that are 0 everywhere, and for all if enmap is None. Inputs that the configuration
        does not use are ignored.

        Returns tier -> (B, classes + 1, H, W), dtype of the inputs (or of autocast); class 0 is background.
        Raises UsageError for an input that is missing or has another shape.
        """
        self._check_inputs(s2, enmap, prior)
        last, skips = self.sentinel2(s2)
        hyperspectral = self._enmap_features(s2, enmap, enmap_present)
        features = self.neck(last, skips, hyperspectral)
        logits: dict[int, Tensor] = self.heads(features, prior if self.config.prior else None)
        return logits

    def _enmap_features(self, s2: Tensor, enmap: Tensor | None, present: Tensor | None) -> Tensor | None:
        """(B, features, H, W) of the EnMAP stream, the learned token where a sample has no EnMAP."""
        if self.enmap is None:
            return None
        if self.absent_enmap is None:
            assert enmap is not None  # checked before
            features: Tensor = self.enmap(enmap)
            return features
        token = self.absent_enmap.view(1, -1, 1, 1)
        if enmap is None:
            return token.expand(len(s2), -1, *s2.shape[-2:])
        if present is None:
            present = enmap.flatten(1).ne(0).any(1)
        features = self.enmap(enmap)
        return torch.where(present.view(-1, 1, 1, 1), features, token.to(features.dtype))

    def _check_inputs(self, s2: Tensor, enmap: Tensor | None, prior: Tensor | None) -> None:
        config = self.config
        batch, side = len(s2), config.patch
        check_shape("s2", s2, (batch, config.months, len(config.s2_bands), side, side))
        if config.enmap and not (enmap is None and config.enmap.optional):
            check_shape("enmap", enmap, (batch, config.enmap.bands, config.coarse, config.coarse))
        if config.prior:
            check_shape("prior", prior, (batch, TIERS, side, side))

    @property
    def checkpointing(self) -> bool:
        """Whether transformer blocks are computed again in the backward pass."""
        return self.sentinel2.checkpointing

    @checkpointing.setter
    def checkpointing(self, chosen: bool) -> None:
        self.sentinel2.checkpointing = chosen
        if self.enmap is not None:
            self.enmap.checkpointing = chosen


def check_shape(name: str, values: Tensor | None, expected: tuple[int, ...]) -> None:
    """Raises UsageError if an input is missing or has another shape."""
    if values is None:
        raise UsageError(f"the model needs the input {name} of shape {expected}; give it, or configure a model without")
    if tuple(values.shape) != expected:
        raise UsageError(f"{name}: expected shape {expected}, got {tuple(values.shape)}")
