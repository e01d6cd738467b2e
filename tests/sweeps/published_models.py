"""All eight published configurations at full size, against the plain model: `make published-models`.

The values of the published code are known for one configuration (tests/real/test_published_model.py). The plain model
of tests/makers shares no code with the package's and reads the published state dict, so it judges the others: logits,
classes, and the gradient norm of every parameter of a step with the published loss. docs/model.md has the result. Takes
about two minutes a configuration and 13 GB.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from h2crop_data.training.model import CropModel, ModelConfig, load_published, to_published

sys.path.append(str(Path(__file__).parents[1] / "makers"))
from plain_model import PlainSizes, plain_logits
from published_configurations import CONFIGURATIONS

#: Where an input of a ReLU is near 0, float32 decides which gradients pass it: norms then differ by some 1e-4. So
#: gradients are judged in float64, without EnMAP, for which memory would not do.
LOGITS, EXACT_GRADIENTS = 1e-5, 1e-9


def seeded_by(oracle: Path) -> ModuleType:
    """The generator of weights, inputs and labels by name."""
    spec = importlib.util.spec_from_file_location("seeded", oracle / "seeded.py")
    if spec is None or spec.loader is None:
        raise SystemExit(f"{oracle} has no seeded.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def model_of(seeded: ModuleType, config: ModelConfig, dtype: torch.dtype) -> CropModel:
    """The model of a configuration with the oracle's weights."""
    state = to_published(CropModel(config))
    for key, tensor in state.items():
        drawn = seeded.weight(key, tuple(tensor.shape))
        state[key] = tensor if drawn is None else torch.as_tensor(drawn)
    return load_published(state, config).to(dtype)


def summed_loss(logits: dict[int, Tensor], seeded: ModuleType) -> Tensor:
    """The published loss for the oracle's labels."""
    labels = seeded.labels()
    of_tiers = [cross_entropy(values, torch.from_numpy(labels[f"level{tier}"])) for tier, values in logits.items()]
    return torch.stack(of_tiers).sum()


def compared(seeded: ModuleType, config: ModelConfig, dtype: torch.dtype) -> dict[str, float]:
    """The largest differences between the two models for a configuration."""
    drawn = seeded.inputs(config.months, hyper=config.enmap is not None, priors=config.prior)
    inputs = {"s2": torch.from_numpy(drawn["S2"]).to(dtype)}
    if config.enmap:
        inputs["enmap"] = torch.from_numpy(drawn["EnMAP"]).to(dtype)
    if config.prior:
        inputs["prior"] = torch.from_numpy(np.stack([drawn["priors"][f"level{tier}"] for tier in (1, 2, 3, 4)], 1))
    model = model_of(seeded, config, dtype)
    weights = {
        key: tensor.clone().requires_grad_(tensor.is_floating_point() and "running_" not in key)
        for key, tensor in to_published(model).items()
    }
    ours = model(**inputs)
    summed_loss(ours, seeded).backward()
    plain = plain_logits(weights, PlainSizes(steps=(2, 2, 2 if config.months > 8 else 1)), **inputs)
    summed_loss(plain, seeded).backward()
    ours, plain = ({tier: of_tier.detach() for tier, of_tier in logits.items()} for logits in (ours, plain))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.grad is None:
                raise SystemExit("a parameter has no gradient")
            parameter.data = parameter.grad
    gradients = {
        key: (float(gradient.double().norm()), float(weights[key].grad.double().norm()))
        for key, gradient in to_published(model).items()
        if weights[key].grad is not None
    }
    return {
        "logits": max(float((ours[tier] - plain[tier]).abs().max()) for tier in plain),
        "other_classes": sum(int((ours[tier].argmax(1) != plain[tier].argmax(1)).sum()) for tier in plain),
        "gradients": max(abs(one - other) / other for one, other in gradients.values()),
        "parameters": len(gradients),
        "parameters_without": len(list(model.parameters())) - len(gradients),
    }


def main() -> None:
    """Compare the configurations that are named, by default all; exit with 1 where one is not the same."""
    parser = argparse.ArgumentParser(description=__doc__)
    shared = Path(os.environ.get("H2CROP_SHARED", "../shared"))
    parser.add_argument("--oracle", type=Path, default=shared / "data/oracle", help="folder of the oracle")
    parser.add_argument("names", nargs="*", default=list(CONFIGURATIONS))
    arguments = parser.parse_args()
    seeded = seeded_by(arguments.oracle)
    failed = False
    for name in arguments.names:
        begun = time.monotonic()
        config = CONFIGURATIONS[name]
        found = compared(seeded, config, torch.float32)
        exact = compared(seeded, replace(config, enmap=None), torch.float64)["gradients"]
        failed |= found["logits"] > LOGITS or exact > EXACT_GRADIENTS
        failed |= bool(found["other_classes"] or found["parameters_without"])
        line = {"configuration": name, **found, "gradients_float64": exact}
        sys.stdout.write(json.dumps(line | {"seconds": round(time.monotonic() - begun)}) + "\n")
        sys.stdout.flush()
    sys.exit(failed)


if __name__ == "__main__":
    main()
