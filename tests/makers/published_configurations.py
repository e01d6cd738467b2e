"""The configurations of the published models, by the names of the published code."""

from __future__ import annotations

from h2crop_data.training.model import ModelConfig

#: Name of the published configuration -> ours.
CONFIGURATIONS = {
    "S2_H_P_jun": ModelConfig.published(6),
    "S2_H_P_Aug": ModelConfig.published(8),
    "S2_H_P_Oct": ModelConfig.published(10),
    "S2_H_P_Dec": ModelConfig.published(12),
    "S2_H_jun": ModelConfig.published(6, prior=False),
    "S2_P_jun": ModelConfig.published(6, enmap=False),
    "S2_jun": ModelConfig.published(6, enmap=False, prior=False),
    "L4only_jun": ModelConfig.published(6, tiers=[4]),
}
