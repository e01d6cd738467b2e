"""A model in training: one step, and the state to resume after an interruption."""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.amp.grad_scaler import GradScaler

from h2crop_data.errors import ModelError, UsageError
from h2crop_data.training.files import write_whole
from h2crop_data.training.losses import hierarchical_loss
from h2crop_data.training.model import CropModel
from h2crop_data.training.settings import PRECISIONS, TrainingSettings


class Trainer:
    """A model in training: `step` takes a batch, `save` and `load` interrupt and resume.

    On a CPU the same seed gives the same weights, interrupted or not. On a GPU some sums depend on the order in which
    threads end, so weights agree up to rounding.
    """

    def __init__(
        self,
        model: CropModel,
        settings: TrainingSettings,
        updates: int,
        device: torch.device | str = "cpu",
        samples: Sequence[str] = (),
    ) -> None:
        """model: is moved to the device and put into training mode. updates: of the whole training. samples: ids of the
        training samples, so that a state of others is not resumed.

        Seeds PyTorch's own random numbers, which stochastic depth draws from, with `settings.seed`.
        """
        self.settings = settings
        self.samples = hashlib.sha256("\n".join(samples).encode()).hexdigest()
        self.updates = updates
        self.device = torch.device(device)
        self.model = model.to(self.device).train()
        self.model.checkpointing = settings.checkpointing
        self.forward: Callable[..., dict[int, Tensor]] = torch.compile(model) if settings.compile else model
        self.optimiser = torch.optim.AdamW(
            model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        self.precision = PRECISIONS[settings.precision]
        # Gradients of float16 are scaled, so that small ones do not become 0.
        self.scaler = GradScaler(self.device.type, enabled=self.precision == torch.float16)
        #: Batches that were seen, updates that were made, and batches since the last one.
        self.batches = 0
        self.done = 0
        self.pending = 0
        #: Sum of the losses of the batches since the epoch began, on the device.
        self.epoch_loss = torch.zeros((), device=self.device)
        #: Whether a loss was not finite: batch normalisation has seen values that are none.
        self.broken = False
        torch.manual_seed(settings.seed)

    def step(self, batch: Mapping[str, Any]) -> Tensor:
        """Add a batch's gradients, and update weights after every `accumulation` batches; gives the loss.

        batch: on the device, as `BatchTransforms` gives it (float32), with `s2`, `label` and what the model sees
        besides. The loss is a scalar float32 on the device, detached: the sum of the tiers (`hierarchical_loss`).
        Raises ModelError where the loss is not finite: parameters are then those before the batch, but running means
        and variances of batch normalisation are not, so the trainer takes no more batches and is not saved. Raises
        UsageError for inputs of other shapes, for labels that the model has no class for (on a CPU; a GPU stops) and
        after the last update.
        """
        if self.broken:
            raise ModelError("an earlier loss was not finite; load the last saved state")
        if self.done >= self.updates:
            raise UsageError(f"the training has ended after its {self.updates} updates; give more of them to go on")
        with torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32):
            logits = self.forward(**inputs_of(self.model, batch))
        try:
            loss = hierarchical_loss(logits, batch["label"])
        except IndexError as error:
            raise UsageError(
                f"a label of the batch has no class in the model ({error}); check that both have the same taxonomy"
            ) from error
        if not torch.isfinite(loss):
            self.broken = True
            named = ", ".join(map(str, batch.get("id", []))) or "without ids"
            raise ModelError(
                f"the loss of batch {self.batches + 1} is {loss.item()} (samples: {named}); "
                "lower the learning rate, or train in float32 or bfloat16"
            )
        scaled: Tensor = self.scaler.scale(loss / self.settings.accumulation)
        torch.autograd.backward(scaled)
        self.epoch_loss += loss.detach()
        self.batches += 1
        self.pending += 1
        if self.pending == self.settings.accumulation:
            self.update()
        return loss.detach()

    def update(self) -> None:
        """Update weights by the mean of the gradients so far, also those of fewer batches than `accumulation`."""
        if not self.pending:
            return
        if self.pending < self.settings.accumulation:
            for parameter in self.model.parameters():
                if parameter.grad is not None:
                    parameter.grad *= self.settings.accumulation / self.pending
        for group in self.optimiser.param_groups:
            group["lr"] = self.settings.learning_rate_at(self.done, self.updates)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.optimiser.zero_grad(set_to_none=True)
        self.done += 1
        self.pending = 0

    def save(self, path: Path) -> None:
        """Write everything that resuming needs into a file, which is replaced whole.

        Raises UsageError between batches whose gradients are still to be used, ModelError where it cannot be written or
        a loss was not finite.
        """
        if self.pending:
            raise UsageError("a training is saved after an update: call update() before save()")
        if self.broken:
            raise ModelError("a training whose loss was not finite cannot be saved; load the last saved state")
        state = {
            **self.identity(),
            "batches": self.batches,
            "done": self.done,
            "epoch_loss": float(self.epoch_loss),
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.scaler.state_dict(),
            "random": torch.get_rng_state(),
            "device_random": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
        }
        write_whole(path, lambda file: torch.save(state, file))

    def identity(self) -> dict[str, str]:
        """What a state must agree in to be resumed, as JSON: settings, updates, model, samples."""
        config = asdict(self.model.config)
        if self.model.config.normalisation is not None:
            config["normalisation"] = repr(self.model.config.normalisation)
        return {
            "settings": self.settings.model_dump_json(),
            "updates": str(self.updates),
            "model configuration": json.dumps(config, sort_keys=True),
            "samples": self.samples,
        }

    def load(self, path: Path) -> None:
        """Resume the training that was saved.

        Raises ModelError for a damaged file, UsageError for a training with other settings, samples or another model.
        """
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            other = [name for name, value in self.identity().items() if state[name] != value]
        except (OSError, RuntimeError, KeyError, TypeError, ValueError, EOFError, pickle.UnpicklingError) as error:
            raise ModelError(f"cannot read {path}: {error}; remove it to begin again") from error
        if other:
            raise UsageError(f"{path} was saved by a training with other {' and '.join(other)}; choose another folder")
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.broken = False
        self.scaler.load_state_dict(state["scaler"])
        self.batches, self.done, self.pending = state["batches"], state["done"], 0
        self.epoch_loss.fill_(state["epoch_loss"])
        torch.set_rng_state(state["random"])
        if state["device_random"] is not None and self.device.type == "cuda":
            torch.cuda.set_rng_state(state["device_random"], self.device)


def inputs_of(model: CropModel, batch: Mapping[str, Any]) -> dict[str, Tensor]:
    """What of a batch a model sees: `s2`, and `enmap`, `prior` where its configuration has them."""
    config = model.config
    wanted = {"s2": True, "enmap": config.enmap is not None, "prior": config.prior, "enmap_present": config.enmap}
    return {name: batch[name] for name, used in wanted.items() if used and name in batch}
