"""Settings of a training, with the published ones as defaults, and its learning rates."""

from __future__ import annotations

import math
from typing import Any, Literal, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator

Precision = Literal["float32", "bfloat16", "float16"]
PRECISIONS: dict[Precision, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


class TrainingSettings(BaseModel):
    """Training settings. The defaults are the published ones, but for `precision`, which was float16."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    #: How often every sample is seen.
    epochs: int = Field(default=100, ge=1)
    #: Samples in a batch.
    batch_size: int = Field(default=4, ge=1)
    #: Batches whose gradients are averaged for one update. Each batch counts the same, however many of its pixels have
    #: a label.
    accumulation: int = Field(default=1, ge=1)
    #: AdamW: the highest learning rate, and the decay of weights.
    learning_rate: float = Field(default=6e-5, gt=0)
    weight_decay: float = Field(default=5e-4, ge=0)
    #: Updates over which the learning rate rises in a straight line from `warm_up_start` times the highest.
    warm_up: int = Field(default=1000, ge=0)
    warm_up_start: float = Field(default=0.01, gt=0, le=1)
    #: The learning rate that the cosine falls to.
    last_learning_rate: float = Field(default=6e-6, ge=0)
    #: dtype of the forward pass; weights, loss and optimiser stay float32.
    precision: Precision = "float32"
    #: Compute transformer blocks again in the backward pass instead of keeping them: at the published sizes less memory
    #: and a third more time.
    checkpointing: bool = False
    #: Compile the model. A resumed run is then the same only up to rounding.
    compile: bool = False
    #: Whether samples are flipped, turned and mixed by chance (`Augmentation`).
    augment: bool = True
    #: Of initial weights, order of samples, augmentation and stochastic depth.
    seed: int = Field(default=0, ge=0, lt=2**32)

    @model_validator(mode="after")
    def check_rates(self) -> Self:
        """The learning rate falls."""
        if self.last_learning_rate > self.learning_rate:
            raise ValueError(
                f"last_learning_rate {self.last_learning_rate:g} is above learning_rate {self.learning_rate:g}"
            )
        return self

    @classmethod
    def small(cls, **chosen: Any) -> Self:
        """For the small model and few samples: higher learning rates, a short warm-up. chosen: other settings."""
        return cls(**{"learning_rate": 1e-3, "last_learning_rate": 1e-4, "warm_up": 10, "epochs": 1} | chosen)

    def learning_rate_at(self, update: int, updates: int) -> float:
        """The learning rate of an update (0-based) of a training of so many.

        Linear from `warm_up_start` times the highest in update 0 to the highest in update `warm_up`, then half a cosine
        down to `last_learning_rate` in update `updates`. A warm-up is at most half of the training.
        """
        warm_up = min(self.warm_up, updates // 2)
        if update < warm_up:
            return self.learning_rate * (self.warm_up_start + (1 - self.warm_up_start) * update / warm_up)
        done = min(1.0, (update - warm_up) / max(1, updates - warm_up))
        span = self.learning_rate - self.last_learning_rate
        return self.last_learning_rate + span * (1 + math.cos(math.pi * done)) / 2
