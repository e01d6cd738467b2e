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
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from h2crop_data.training.model import CropModel, load_published, to_published

sys.path.append(str(Path(__file__).parents[1] / "makers"))
from plain_model import PlainSizes, plain_logits

#: Configuration -> months, and whether it sees EnMAP and the prior.
CONFIGURATIONS = {
    "S2_H_P_jun": (6, True, True),
    "S2_H_P_Aug": (8, True, True),
    "S2_H_P_Oct": (10, True, True),
    "S2_H_P_Dec": (12, True, True),
    "S2_H_jun": (6, True, False),
    "S2_P_jun": (6, False, True),
    "S2_jun": (6, False, False),
    "L4only_jun": (6, True, True),
}
LOGITS, GRADIENTS = 1e-5, 1e-4


def seeded_by(oracle: Path) -> ModuleType:
    """The generator of weights, inputs and labels by name."""
    spec = importlib.util.spec_from_file_location("seeded", oracle / "seeded.py")
    if spec is None or spec.loader is None:
        raise SystemExit(f"{oracle} has no seeded.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def model_of(oracle: Path, seeded: ModuleType, name: str) -> CropModel:
    """The model of a configuration with the oracle's weights."""
    keys = json.loads((oracle / f"keys_{name}.json").read_text(encoding="utf-8"))
    state = {}
    for key, (shape, dtype) in keys.items():
        drawn = seeded.weight(key, shape)
        state[key] = torch.zeros(shape, dtype=getattr(torch, dtype)) if drawn is None else torch.as_tensor(drawn)
    return load_published(state)


def summed_loss(logits: dict[int, Tensor], seeded: ModuleType) -> Tensor:
    """The published loss for the oracle's labels."""
    labels = seeded.labels()
    of_tiers = [cross_entropy(values, torch.from_numpy(labels[f"level{tier}"])) for tier, values in logits.items()]
    return torch.stack(of_tiers).sum()


def compared(oracle: Path, name: str) -> dict[str, float]:
    """The largest differences between the two models for a configuration."""
    seeded = seeded_by(oracle)
    months, enmap, prior = CONFIGURATIONS[name]
    drawn = seeded.inputs(months, hyper=enmap, priors=prior)
    inputs = {"s2": torch.from_numpy(drawn["S2"])}
    if enmap:
        inputs["enmap"] = torch.from_numpy(drawn["EnMAP"])
    if prior:
        inputs["prior"] = torch.from_numpy(np.stack([drawn["priors"][f"level{tier}"] for tier in (1, 2, 3, 4)], 1))
    model = model_of(oracle, seeded, name)
    weights = {
        key: tensor.clone().requires_grad_(tensor.is_floating_point() and "running_" not in key)
        for key, tensor in to_published(model).items()
    }
    ours = model(**inputs)
    summed_loss(ours, seeded).backward()
    plain = plain_logits(weights, PlainSizes(steps=(2, 2, 2 if months > 8 else 1)), **inputs)
    summed_loss(plain, seeded).backward()
    ours, plain = ({tier: of_tier.detach() for tier, of_tier in logits.items()} for logits in (ours, plain))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.grad is None:
                raise SystemExit(f"{name}: a parameter has no gradient")
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


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    shared = Path(os.environ.get("H2CROP_SHARED", "../shared"))
    parser.add_argument("--oracle", type=Path, default=shared / "data/oracle", help="folder of the oracle")
    parser.add_argument("names", nargs="*", default=list(CONFIGURATIONS))
    arguments = parser.parse_args()
    failed = False
    for name in arguments.names:
        begun = time.monotonic()
        found = compared(arguments.oracle, name)
        failed |= found["logits"] > LOGITS or found["gradients"] > GRADIENTS
        failed |= bool(found["other_classes"] or found["parameters_without"])
        sys.stdout.write(
            json.dumps({"configuration": name, **found, "seconds": round(time.monotonic() - begun)}) + "\n"
        )
        sys.stdout.flush()
    sys.exit(failed)
