"""The model against the published code: keys of eight configurations, then logits, inner values and gradients.

The expected values were computed with the published code in float32 (eval mode) from weights and inputs that are drawn
from names and shapes (`seeded.py` of the oracle). One full-size step takes about half a minute and 5 GB.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from published_configurations import CONFIGURATIONS
from torch import Tensor, nn

from h2crop_data.errors import UsageError
from h2crop_data.training.model import CropModel, ModelConfig, load_published, to_published
from h2crop_data.training.model.published import published_config, used_weights
from h2crop_data.training.normalisation import Normalisation

#: Parameters in the published code, dead ones included.
PUBLISHED_TOTALS = {"S2_H_P_jun": 216_634_366, "S2_H_P_Dec": 223_417_342, "S2_jun": 115_008_464}
DEAD = 40_403_456

S2, ENMAP = "encoders.encoders.S2.", "encoders.encoders.EnMAP."
Tensors = dict[str, Tensor]


@pytest.fixture(scope="module")
def oracle(shared: Path) -> Path:
    return shared / "oracle"


@pytest.fixture(scope="module")
def seeded(oracle: Path) -> ModuleType:
    """The generator of weights and inputs."""
    spec = importlib.util.spec_from_file_location("seeded", oracle / "seeded.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def published_keys(oracle: Path, name: str) -> dict[str, tuple[list[int], str]]:
    """Key -> shape and dtype."""
    keys: dict[str, tuple[list[int], str]] = json.loads((oracle / f"keys_{name}.json").read_text(encoding="utf-8"))
    return keys


def empty_state(keys: dict[str, tuple[list[int], str]]) -> Tensors:
    return {key: torch.empty(shape, dtype=getattr(torch, dtype), device="meta") for key, (shape, dtype) in keys.items()}


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_a_model_exports_exactly_the_published_keys(oracle: Path, name: str) -> None:
    with torch.device("meta"):
        model = CropModel(CONFIGURATIONS[name])
    exported = to_published(model)
    facts = {key: [list(tensor.shape), str(tensor.dtype).removeprefix("torch.")] for key, tensor in exported.items()}
    assert facts == published_keys(oracle, name)


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_every_published_key_has_its_place_in_the_model_of_its_configuration(oracle: Path, name: str) -> None:
    state = empty_state(published_keys(oracle, name))
    config = published_config(state)
    assert config == CONFIGURATIONS[name]
    with torch.device("meta"):
        own = CropModel(config).state_dict()
    weights = used_weights(state, config)
    assert {key: tensor.shape for key, tensor in weights.items()} == {key: own[key].shape for key in own}


@pytest.mark.parametrize("name", PUBLISHED_TOTALS)
def test_parameters_are_the_published_ones_without_the_dead(name: str) -> None:
    config = CONFIGURATIONS[name]
    with torch.device("meta"):
        model = CropModel(config)
    count = sum(parameter.numel() for parameter in model.parameters())
    assert count == PUBLISHED_TOTALS[name] - (DEAD if config.enmap else 0)


def test_missing_unexpected_and_misshaped_keys_are_named(oracle: Path) -> None:
    state = empty_state(published_keys(oracle, "S2_jun"))
    del state[S2 + "backbone.layers.2.blocks.17.mlp.fc1.bias"]
    state["neck.extra.weight"] = torch.empty(1, device="meta")
    state["neck.out_conv.0.bias"] = torch.empty(7, device="meta")
    with pytest.raises(UsageError) as raised:
        load_published(state)
    message = str(raised.value)
    assert "1 missing: encoders.encoders.S2.backbone.layers.2.blocks.17.mlp.fc1.bias" in message
    assert "1 unexpected: neck.extra.weight" in message
    assert "1 of another shape: neck.out_conv.0.bias (7,) instead of (128,)" in message


# One step of the full model.


@dataclass(frozen=True)
class Step:
    """A forward and backward pass of the full model."""

    model: CropModel
    logits: dict[int, Tensor]
    inner: Tensors
    losses: dict[int, float]
    #: Published key -> norm of the gradient.
    gradients: dict[str, float]


def same(values: Any) -> Tensor:
    assert isinstance(values, Tensor)
    return values.detach()


def to_channels_first(values: Any) -> Tensor:
    """(B, D, H, W, C) -> (B, C, D, H, W), as the published stages give maps."""
    return same(values).permute(0, 4, 1, 2, 3)


#: Published name of an inner value -> our module, and our value in the published shape.
INNER: dict[str, tuple[str, Callable[[Any], Tensor]]] = {
    S2 + "patch_emd": ("sentinel2.patch_embedding", same),
    S2 + "backbone.layers.0.blocks.1": ("sentinel2.stages.0.blocks.1", same),
    S2 + "backbone.layers.0": ("sentinel2.stages.0", to_channels_first),
    S2 + "backbone.layers.1": ("sentinel2.stages.1", to_channels_first),
    S2 + "backbone.layers.2": ("sentinel2.stages.2", to_channels_first),
    S2 + "backbone.layers.3.blocks.1": ("sentinel2.stages.3.blocks.1", same),
    S2 + "backbone.layers.3": ("sentinel2.stages.3", to_channels_first),
    S2 + "backbone/encoder_features": ("sentinel2", lambda result: same(result[0])),
    S2 + "backbone/features_list[0]": ("sentinel2", lambda result: same(result[1][0])),
    S2 + "backbone/features_list[1]": ("sentinel2", lambda result: same(result[1][1])),
    S2 + "backbone/features_list[2]": ("sentinel2", lambda result: same(result[1][2])),
    S2 + "backbone/features_list[3]": ("sentinel2.stages.2", lambda result: to_channels_first(result).flatten(1, 2)),
    ENMAP + "s_vit.patch_emd": (
        "enmap.spatial.embedding",
        lambda result: same(result).flatten(2).transpose(1, 2),
    ),
    ENMAP + "s_vit.blocks.0": ("enmap.spatial.blocks.0", same),
    ENMAP + "s_vit.out_conv": ("enmap.spatial.upsampling.0", same),
    ENMAP + "s_vit": ("enmap.spatial", same),
    ENMAP + "p_vit.patch_emd": ("enmap.spectral.pooling", same),
    ENMAP + "p_vit.blocks.0": ("enmap.spectral.blocks.0", same),
    ENMAP + "p_vit.out_post": ("enmap.spectral.expansion", same),
    ENMAP + "p_vit.out_conv": ("enmap.spectral.upsampling.0", same),
    ENMAP + "p_vit": ("enmap.spectral", same),
    ENMAP[:-1] + "/ori_feature": ("enmap", same),
    "neck.fusion_list.0": ("neck.fusions.0", same),
    "neck.fusion_list.1": ("neck.fusions.1", same),
    "neck.fusion_list.2": ("neck.fusions.2", same),
    "neck.out_conv": ("neck.refinement", same),
    "neck.hyper_embed_neck": ("neck.enmap_refinement", same),
    "neck": ("neck", same),
}


@pytest.fixture(scope="module")
def expected(oracle: Path) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((oracle / "oracle_S2_H_P_jun.json").read_text(encoding="utf-8"))
    return facts


@pytest.fixture(scope="module")
def values(oracle: Path) -> dict[str, np.ndarray]:
    with np.load(oracle / "oracle_S2_H_P_jun.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def step(oracle: Path, seeded: ModuleType, expected: dict[str, Any]) -> Step:
    model = load_published(seeded_state(oracle, seeded, expected))
    inner: Tensors = {}
    for name, (module, in_published_shape) in INNER.items():

        def keep(_: nn.Module, __: Any, result: Any, name: str = name, view: Any = in_published_shape) -> None:
            inner[name] = view(result)

        model.get_submodule(module).register_forward_hook(keep)
    inputs = seeded.inputs(expected["T"])
    logits = model(
        s2=torch.from_numpy(inputs["S2"]),
        enmap=torch.from_numpy(inputs["EnMAP"]),
        prior=torch.from_numpy(np.stack([inputs["priors"][f"level{tier}"] for tier in (1, 2, 3, 4)], 1)),
    )
    labels = {tier: torch.from_numpy(seeded.labels()[f"level{tier}"]) for tier in logits}
    losses = {tier: nn.functional.cross_entropy(logits[tier], labels[tier]) for tier in logits}
    torch.stack(list(losses.values())).sum().backward()
    # Exported under published keys, a parameter's gradient in place of its value.
    with torch.no_grad():
        for parameter in model.parameters():
            assert parameter.grad is not None
            parameter.data = parameter.grad
    gradients = {key: float(tensor.double().norm()) for key, tensor in to_published(model).items() if tensor.ndim}
    return Step(
        model,
        {tier: tensor.detach() for tier, tensor in logits.items()},
        inner,
        {tier: loss.item() for tier, loss in losses.items()},
        gradients,
    )


def seeded_state(oracle: Path, seeded: ModuleType, expected: dict[str, Any]) -> Tensors:
    """The published state dict of the oracle; its dead weights without values."""
    state = empty_state(published_keys(oracle, "S2_H_P_jun"))
    for key, tensor in state.items():
        if key in expected["params_without_grad"]:
            continue
        drawn = seeded.weight(key, tensor.shape)
        # Integer buffers keep the module's own values.
        state[key] = torch.zeros(tensor.shape, dtype=tensor.dtype) if drawn is None else torch.from_numpy(drawn)
    return state


@pytest.mark.parametrize("tier", [1, 2, 3, 4])
def test_logits_are_those_of_the_published_code(step: Step, values: dict[str, np.ndarray], tier: int) -> None:
    logits = step.logits[tier].numpy()
    sampled = logits.ravel()[values[f"logits.level{tier}|idx"]]
    np.testing.assert_allclose(sampled, values[f"logits.level{tier}|val"], rtol=0, atol=1e-5)
    strided = logits[:, :, ::12, ::12]
    np.testing.assert_allclose(strided, values[f"logits_stride12.level{tier}"], rtol=0, atol=1e-5)
    np.testing.assert_array_equal(logits.argmax(1), values[f"argmax.level{tier}"])


def test_every_inner_value_of_the_oracle_is_compared(expected: dict[str, Any]) -> None:
    assert set(INNER) == {name for name in expected["tensors"] if not name.startswith("logits.")}


@pytest.mark.parametrize("name", INNER)
def test_inner_values_are_those_of_the_published_code(
    step: Step, expected: dict[str, Any], values: dict[str, np.ndarray], name: str
) -> None:
    ours = step.inner[name]
    facts = expected["tensors"][name]
    assert list(ours.shape) == facts["shape"]
    sampled = ours.reshape(-1).numpy()[values[f"{name}|idx"]]
    np.testing.assert_allclose(sampled, values[f"{name}|val"], rtol=0, atol=1e-5 * max(1, facts["std"]))
    assert ours.double().abs().sum().item() == pytest.approx(facts["abssum"], rel=1e-6)


def test_published_weights_come_with_the_published_normalisation(step: Step) -> None:
    assert step.model.config == replace(ModelConfig.published(6), normalisation=Normalisation.published())


def test_losses_are_those_of_the_published_code(step: Step, expected: dict[str, Any]) -> None:
    published = {int(name[5]): loss for name, loss in expected["losses_eval_mode"].items()}
    assert step.losses == pytest.approx(published, rel=1e-6)


def test_gradients_are_those_of_the_published_code(step: Step, expected: dict[str, Any]) -> None:
    published = expected["grad_norms"]
    assert len(published) == 527
    assert len(list(step.model.parameters())) == len(published)
    assert {key: step.gradients[key] for key in published} == pytest.approx(published, rel=1e-4)
