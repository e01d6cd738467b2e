"""The small model overfits four samples of the demo: `make overfit`; docs/model.md has the result.

What cannot learn four samples has a mistake in its loss, its gradients or the way its inputs lie. The four are one
batch, step after step, without augmentation, until more than 99 % of the pixels of every tier are right, in evaluation.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch
from torch.utils.data import DataLoader, Subset

from h2crop_data.constants import UNKNOWN
from h2crop_data.training.dataset import CropSamples
from h2crop_data.training.fitting import config_for_store
from h2crop_data.training.model import CropModel, ModelConfig
from h2crop_data.training.settings import TrainingSettings
from h2crop_data.training.trainer import Trainer, inputs_of
from h2crop_data.training.transforms import BatchTransforms

SAMPLES = 4
WANTED = 0.99


@torch.inference_mode()
def accuracies(model: CropModel, batches: list[dict[str, torch.Tensor]]) -> dict[int, float]:
    """By tier, the share of pixels with a known label that are predicted as it."""
    model.eval()
    right = dict.fromkeys(model.config.tiers, 0)
    counted = dict.fromkeys(model.config.tiers, 0)
    for batch in batches:
        for tier, logits in model(**inputs_of(model, batch)).items():
            label = batch["label"][:, tier - 1]
            known = label != UNKNOWN
            right[tier] += int((logits.argmax(1) == label)[known].sum())
            counted[tier] += int(known.sum())
    model.train()
    return {tier: right[tier] / counted[tier] for tier in right}


def cut(batch: dict[str, torch.Tensor], pixels: int | None) -> dict[str, torch.Tensor]:
    """The north-western corner of a batch's patches, so many pixels of 10 m along (a multiple of 12); None: all."""
    if pixels is None:
        return batch
    sides = {name: pixels // 3 if name == "enmap" else pixels for name in ("s2", "enmap", "label", "prior")}
    return {name: batch[name][..., :side, :side] for name, side in sides.items()}


def overfit(store: Path, months: int, epochs: int, pixels: int | None) -> dict[str, object]:
    """Train on the first samples of a store; gives accuracies, updates and seconds."""
    samples = CropSamples(store, split="train", months=months)
    chosen = Subset(samples, range(SAMPLES))
    transforms = BatchTransforms.for_store(store)
    batches = [cut(transforms(batch), pixels) for batch in DataLoader(chosen, batch_size=SAMPLES)]
    settings = TrainingSettings.small(
        learning_rate=3e-3, warm_up=20, epochs=epochs, batch_size=SAMPLES, weight_decay=0.0
    )
    torch.manual_seed(settings.seed)
    config = config_for_store(store, months=months)
    # What regularises is off: it is there to keep a model from learning samples by heart.
    config = replace(config, sentinel2=replace(config.sentinel2, stochastic_depth=0.0))
    if pixels is not None:
        cell = ModelConfig.small(months, patch=pixels).enmap.cell
        config = replace(config, patch=pixels, enmap=replace(config.enmap, cell=cell))
    trainer = Trainer(CropModel(config), settings, updates=epochs)
    begun = time.monotonic()
    reached: dict[int, float] = {}
    for epoch in range(epochs):
        loss = float(trainer.step(batches[0]))
        if (epoch + 1) % 10 == 0 or epoch + 1 == epochs:
            reached = accuracies(trainer.model, batches)
            shares = ", ".join(f"{share:.4f}" for share in reached.values())
            sys.stderr.write(f"epoch {epoch + 1}: loss {loss:.3f}, right at tiers 1 to 4: {shares}\n")
            if min(reached.values()) > WANTED:
                break
    return {
        "accuracy": {str(tier): round(share, 5) for tier, share in reached.items()},
        "updates": trainer.done,
        "seconds": round(time.monotonic() - begun),
        "samples": [samples.ids[place] for place in range(SAMPLES)],
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", type=Path)
    parser.add_argument("--months", type=int, default=7)
    parser.add_argument("--epochs", type=int, default=300)
    parser.add_argument("--pixels", type=int, help="learn a corner of each sample instead of the whole")
    arguments = parser.parse_args()
    result = overfit(arguments.store, arguments.months, arguments.epochs, arguments.pixels)
    sys.stdout.write(json.dumps(result, indent=1) + "\n")
    sys.exit(min(result["accuracy"].values()) <= WANTED)  # type: ignore[attr-defined]
