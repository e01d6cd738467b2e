"""The dual-stream model: Sentinel-2 months and one EnMAP image to crops of four tiers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn

from h2crop_data.constants import TIERS
from h2crop_data.errors import ModelError, UsageError
from h2crop_data.training.model.config import ModelConfig
from h2crop_data.training.model.decoder import Heads, Neck
from h2crop_data.training.model.hyperspectral import HyperspectralStream
from h2crop_data.training.model.swin import Sentinel2Stream
from h2crop_data.training.model.weights import check_keys


class CropModel(nn.Module):
    """The model of a configuration, with initial weights for training.

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
        int64, tiers 1..4; 255 (unknown) and unknown classes are all zeros. enmap_present:
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

    @classmethod
    def from_weights(
        cls,
        config: ModelConfig,
        weights: Mapping[str, Tensor],
        source: str,
        remedy: str,
        name: Callable[[str], str] = str,
    ) -> Self:
        """A model with a copy of these weights, on the CPU, in the model's dtypes and in eval mode.

        weights: by the model's own keys. source, remedy, name: what they come from, what to do if they do not fit, and
        the names of keys in `source`, for errors.
        Raises UsageError that names missing and unexpected keys, and those of another shape.
        """
        with torch.device("meta"):  # no initial weights are drawn
            model = cls(config)
        own = model.state_dict()
        check_keys(own, weights, source, remedy, name)
        copies = {key: weights[key].to(device="cpu", dtype=own[key].dtype, copy=True) for key in own}
        model.load_state_dict(copies, assign=True)
        return model.eval()

    def save_pretrained(self, folder: str | Path) -> None:
        """Save weights (safetensors) and config.json, which says what the model expects of its inputs.

        A model that was in the folder stays whole until the new one has replaced it. Raises ModelError where the
        folder cannot be written.
        """
        from h2crop_data.training.model.saved import write_model  # needs more packages than the model

        write_model(Path(folder), self.config, self.state_dict())

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Self:
        """The model of a folder that `save_pretrained` wrote, on the CPU and in eval mode.

        Raises ModelError for a folder that holds no model, or a damaged one, or one of another version.
        """
        from h2crop_data.training.model.saved import read_model  # needs more packages than the model

        config, weights = read_model(Path(folder))
        try:
            remedy = "its config.json does not match: save the model again"
            return cls.from_weights(config, weights, f"the file of weights in {folder}", remedy)
        except UsageError as error:
            raise ModelError(str(error)) from error

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
