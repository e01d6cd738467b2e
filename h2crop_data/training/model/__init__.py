"""The dual-stream model (docs/model.md): its configuration, the model, and published weights."""

from h2crop_data.training.model.config import HyperspectralConfig, ModelConfig, SwinConfig, TransformerConfig
from h2crop_data.training.model.model import CropModel
from h2crop_data.training.model.published import load_agrifm, load_published, to_published

__all__ = [
    "CropModel",
    "HyperspectralConfig",
    "ModelConfig",
    "SwinConfig",
    "TransformerConfig",
    "load_agrifm",
    "load_published",
    "to_published",
]
