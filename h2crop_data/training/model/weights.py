"""Weights into models: every key is there, none is left over, every shape fits, or an error says which does not."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from h2crop_data.errors import UsageError
from h2crop_data.training.model.config import ModelConfig
from h2crop_data.training.model.model import CropModel

#: So many keys of a kind are named in an error.
NAMED = 5


def model_of_weights(
    config: ModelConfig, weights: Mapping[str, Tensor], source: str, name: Callable[[str], str] = str
) -> CropModel:
    """A model of these weights, copied to the CPU and to the model's dtypes, without drawing start values first.

    source: what the weights come from, for errors. name: of our keys there. Raises UsageError, see `check_keys`.
    """
    with torch.device("meta"):
        model = CropModel(config)
    own = model.state_dict()
    check_keys(own, weights, source, name)
    copies = {key: weights[key].to(device="cpu", dtype=own[key].dtype, copy=True) for key in own}
    model.load_state_dict(copies, assign=True)
    return model


def check_keys(
    own: Mapping[str, Tensor], given: Mapping[str, Tensor], source: str, name: Callable[[str], str] = str
) -> None:
    """Raises UsageError that names what is missing, unexpected or of another shape. name: of our keys in `source`."""
    shapes = [
        f"{name(key)} {tuple(given[key].shape)} instead of {tuple(own[key].shape)}"
        for key in own
        if key in given and given[key].shape != own[key].shape
    ]
    problems = [
        listed("missing", [name(key) for key in own if key not in given]),
        listed("unexpected", [name(key) for key in given if key not in own]),
        listed("of another shape", shapes),
    ]
    found = "; ".join(filter(None, problems))
    if found:
        raise UsageError(f"{source} does not fit the model: {found}; give the configuration it was made with")


def listed(kind: str, names: list[str]) -> str:
    """`3 missing: a, b, c`; empty for no names."""
    if not names:
        return ""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{len(names)} {kind}: {', '.join(names[:NAMED])}{more}"
