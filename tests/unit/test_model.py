"""The dual-stream model on small sizes: against a plain second writing, and what holds for every configuration."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from plain_model import PlainSizes, plain_logits
from torch import Tensor

from h2crop_data.errors import UsageError
from h2crop_data.training.model import (
    CropModel,
    HyperspectralConfig,
    ModelConfig,
    SwinConfig,
    TransformerConfig,
    load_published,
    to_published,
)
from h2crop_data.training.model.attention import StochasticDepth
from h2crop_data.training.model.swin import SwinStage, relative_positions, shift_mask
from h2crop_data.training.normalisation import Normalisation

#: Frames that merging 1, 2, 3 average, by months: the published ones, and those of other windows.
STEPS = {6: (2, 2, 1), 8: (2, 2, 1), 10: (2, 2, 2), 12: (2, 2, 2), 1: (1, 1, 1), 3: (2, 1, 1), 4: (2, 1, 1)}


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Tensors this small are slower with more threads, on a busy machine by far."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def tiny(months: int = 6, *, patch: int = 96, cell: int = 8, **fields: Any) -> ModelConfig:
    """A model whose maps are padded and shifted at 96 pixels (24, 12, 6, 3 tokens)."""
    chosen: dict[str, Any] = {
        "classes": {1: 2, 2: 3, 3: 4, 4: 5},
        "sentinel2": SwinConfig(width=4, depths=(2, 2, 2, 2), heads=(1, 2, 2, 4), mlp_ratio=2),
        "enmap": HyperspectralConfig(
            bands=5,
            spatial_width=6,
            spatial=TransformerConfig(depth=2, heads=3),
            cell=cell,
            spectral=TransformerConfig(depth=2, heads=1),
            features=3,
        ),
    }
    return ModelConfig.build(months=months, patch=patch, **chosen | fields)


def model_of(config: ModelConfig, seed: int = 0) -> CropModel:
    """A model in eval mode whose weights are all random, those of norms and biases too."""
    torch.manual_seed(seed)
    model = CropModel(config).eval()
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 2)
            elif tensor.is_floating_point():
                spread = 1.0 if tensor.ndim == 1 else tensor[0].numel() ** -0.5
                tensor.copy_(spread * torch.randn(tensor.shape) + float("norm.weight" in name))
    return model


def batch_of(config: ModelConfig, size: int = 2, seed: int = 1) -> dict[str, Tensor]:
    """Random inputs, a sixth of the priors unknown."""
    torch.manual_seed(seed)
    batch = {"s2": torch.randn(size, config.months, len(config.s2_bands), config.patch, config.patch)}
    if config.enmap:
        batch["enmap"] = torch.randn(size, config.enmap.bands, config.coarse, config.coarse)
    if config.prior:
        counts = torch.tensor([config.classes.get(tier, 1) + 1 for tier in (1, 2, 3, 4)]).view(1, 4, 1, 1)
        prior = torch.randint(0, 1000, (size, 4, config.patch, config.patch)) % counts
        batch["prior"] = torch.where(torch.rand(prior.shape) < 1 / 6, 255, prior)
    return batch


def total_of(logits: dict[int, Tensor]) -> Tensor:
    """A loss: the sum of mean squares."""
    return torch.stack([values.float().square().mean() for values in logits.values()]).sum()


CASES = {
    "6 months": tiny(6),
    "8 months": tiny(8),
    "10 months": tiny(10),
    "12 months": tiny(12),
    "1 month": tiny(1),
    "3 months": tiny(3),
    "4 months": tiny(4),
    "without EnMAP": tiny(enmap=None),
    "without prior": tiny(12, prior=False),
    "neither": tiny(enmap=None, prior=False),
    "tier 4 alone": tiny(classes={4: 5}),
    "tiers 2 and 4": tiny(classes={2: 3, 4: 5}),
    "48 pixels": tiny(patch=48, cell=4),
    "60 pixels": tiny(patch=60, cell=4),
    "144 pixels": tiny(patch=144, cell=12),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_logits_are_those_of_the_plain_model(name: str) -> None:
    config = CASES[name]
    model = model_of(config).double()
    batch = {key: value.double() if value.is_floating_point() else value for key, value in batch_of(config).items()}
    sizes = PlainSizes(steps=STEPS[config.months], spatial_heads=3, spectral_heads=1)
    if config.enmap:
        sizes = PlainSizes(steps=sizes.steps, spatial_heads=3, spectral_heads=1, cell=config.enmap.cell)
    with torch.no_grad():
        ours = model(**batch)
        plain = plain_logits(to_published(model), sizes, **batch)
    assert list(ours) == list(plain) == sorted(config.classes)
    for tier, logits in ours.items():
        assert logits.shape == (2, config.classes[tier] + 1, config.patch, config.patch)
        # The table of sinusoids is float32.
        torch.testing.assert_close(logits, plain[tier], rtol=0, atol=2e-6)
        assert logits.std() > 0.1


@pytest.mark.slow
def test_gradients_are_those_of_the_plain_model() -> None:
    config = tiny()
    model, batch = model_of(config).double(), batch_of(config)
    batch = {key: value.double() if value.is_floating_point() else value for key, value in batch.items()}
    weights = {
        key: value.clone().requires_grad_(value.is_floating_point() and "running" not in key)
        for key, value in to_published(model).items()
    }
    sizes = PlainSizes(steps=STEPS[6], spatial_heads=3, spectral_heads=1, cell=8)
    for logits in (model(**batch), plain_logits(weights, sizes, **batch)):
        total_of(logits).backward()
    with torch.no_grad():
        for parameter in model.parameters():
            assert parameter.grad is not None
            parameter.data = parameter.grad
    compared = 0
    for key, gradient in to_published(model).items():
        if weights[key].grad is not None:
            torch.testing.assert_close(gradient, weights[key].grad, rtol=1e-4, atol=1e-8)
            compared += 1
    assert compared == len(list(model.parameters()))


# Windows.


@pytest.mark.slow
@pytest.mark.parametrize(("months", "stage"), [(6, 0), (12, 1), (6, 2), (6, 3)])
def test_window_attention_by_its_definition(months: int, stage: int) -> None:
    """Token by token: which tokens it sees, and which row of the table stands for each pair."""
    config = tiny(months)
    model = model_of(config).double()
    part = model.sentinel2.stages[stage]
    assert isinstance(part, SwinStage)
    block = part.blocks[1]
    width, heads = config.sentinel2.widths[stage], config.sentinel2.heads[stage]
    frames, size = config.frames[stage], (24, 12, 6, 3)[stage]
    torch.manual_seed(2)
    tokens = torch.randn(1, frames, size, size, width).double()
    with torch.no_grad():
        found = block.attend(tokens, part.positions, part.mask if block.shift else None)
        side = min(size, 7)
        shift = 3 if size > 7 else 0
        padded = -(-size // side) * side
        qkv = {}
        for place in itertools.product(range(frames), range(padded), range(padded)):
            token = tokens[0][place] if max(place[1:]) < size else torch.zeros(width).double()
            qkv[place] = block.attention.qkv(token).view(3, heads, width // heads)
        for place in [(0, 0, 0), (frames - 1, size - 1, size - 1), (0, size // 2, size - 1), (0, size - 1, 1)]:
            window = window_of(place, padded, side, shift)
            seen = [other for other in qkv if window_of(other, padded, side, shift) == window]
            query = qkv[place][0]
            scores = torch.stack([(query * qkv[other][1]).sum(-1) for other in seen]) / (width // heads) ** 0.5
            rows = [table_row(place, other, side, shift, padded) for other in seen]
            weights = (scores + block.attention.bias_table[rows]).softmax(0)
            attended = (weights.unsqueeze(-1) * torch.stack([qkv[other][2] for other in seen])).sum(0).flatten()
            expected = block.attention.projection(attended)
            # Where a window is cut by the shift, MASKED leaves e^-100 of a score.
            torch.testing.assert_close(found[0][place], expected, rtol=0, atol=1e-9)


def window_of(place: tuple[int, ...], padded: int, side: int, shift: int) -> tuple[int, ...]:
    """The window of a token: the first one along an axis is `shift` tokens wide, the others `side` or what is left."""
    return tuple((number + side - shift) // side if shift else number // side for number in place[1:])


def table_row(query: tuple[int, ...], key: tuple[int, ...], side: int, shift: int, padded: int) -> int:
    """Row of the (8, 7, 7) table: by the difference of places, which are counted as in a full window."""
    places = []
    for frame, row, column in (query, key):
        row, column = ((number - shift) % padded % side for number in (row, column))
        number = (frame * side + row) * side + column
        places.append(np.array(np.unravel_index(number, (8, 7, 7))))
    offset = places[0] - places[1] + (7, 6, 6)
    return int((offset[0] * 13 + offset[1]) * 13 + offset[2])


def test_the_table_of_positions_has_every_offset_once() -> None:
    rows = relative_positions((8, 7, 7))
    assert rows.shape == (392, 392)
    assert set(rows.flatten()) == set(range(15 * 13 * 13))
    assert len(set(rows.diagonal())) == 1
    # Rows count offsets in the order frames, rows, columns.
    assert rows[1, 0] - rows[0, 0] == 1
    assert rows[7, 0] - rows[0, 0] == 13
    assert rows[49, 0] - rows[0, 0] == 13 * 13


def test_windows_inside_the_map_are_not_masked() -> None:
    mask = shift_mask(3, 48, 7, 3).reshape(7, 7, 147, 147)
    assert not mask[:-1, :-1].any()
    assert (np.unique(mask[-1, 0]) == [-100, 0]).all()
    # The last window along an axis holds 4 tokens of one side and 3 of the other.
    assert (mask[-1, 0] == 0).sum() == (3 * 4 * 7) ** 2 + (3 * 3 * 7) ** 2


# Configurations.


@pytest.mark.parametrize(
    ("months", "frames"),
    [(6, (3, 2, 1, 1)), (8, (4, 2, 1, 1)), (10, (5, 3, 2, 1)), (12, (6, 3, 2, 1)), (5, (3, 2, 1, 1))],
)
def test_frames_of_each_stage(months: int, frames: tuple[int, ...]) -> None:
    assert ModelConfig.published(months).frames == frames


def test_an_odd_last_month_is_paired_with_zeros() -> None:
    odd, even = tiny(5), tiny(6)
    batch = batch_of(odd)
    model, longer = model_of(odd), CropModel(even).eval()
    longer.load_state_dict(model.state_dict())
    full = batch | {"s2": torch.cat([batch["s2"], torch.zeros_like(batch["s2"][:, :1])], 1)}
    with torch.no_grad():
        for ours, other in zip(model(**batch).values(), longer(**full).values(), strict=True):
            torch.testing.assert_close(ours, other)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"months": 13}, "months"),
        ({"patch": 100}, "patch 100 is not a multiple of 24"),
        ({"patch": 102, "enmap": None}, "patch 102 is not a multiple of a token's 4"),
        ({"classes": {5: 3}}, "tiers [5]: give one or more of 1..4"),
        ({"classes": {}}, "give one or more"),
        ({"sentinel2": SwinConfig(window=(2, 7, 7))}, "6 months are 3 frames"),
        ({"widths": 3}, "widths: unknown field"),
        ({"months": "six", "prior": 1}, "from 1 to 12, got 'six'; prior: expected bool, got 1"),
        ({"patch": 96.0}, "patch: expected a whole number of at least 1, got 96.0"),
        ({"classes": {"1": 6}}, "classes, a tier: expected int, got '1'"),
        ({"classes": {1: 0}}, "classes, tier 1: expected a whole number of at least 1, got 0"),
        ({"enmap": {"bands": 3}}, "enmap: expected HyperspectralConfig"),
        (
            {"normalisation": Normalisation("a test", mean={"s2": (0.0,) * 10}, sd={"s2": (1.0,) * 10})},
            "0 figures of enmap",
        ),
    ],
)
def test_sizes_that_do_not_fit_are_refused_in_words(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError) as raised:
        ModelConfig.build(**vars(tiny()) | fields)
    assert words in str(raised.value)


@pytest.mark.parametrize(
    ("record", "values", "words"),
    [
        (SwinConfig, {"depths": (2, 2, 0, 2)}, "depths[2]: expected a whole number of at least 1, got 0"),
        (SwinConfig, {"depths": [2, 2, 2, 2]}, "depths: expected a tuple of 4 whole numbers"),
        (SwinConfig, {"heads": (1, 2, 4)}, "heads: expected a tuple of 4"),
        (SwinConfig, {"width": 6}, "stage 0: width 6 is not a multiple of 4 heads"),
        (SwinConfig, {"token": (2, 4, 2)}, "must be square in y and x"),
        (SwinConfig, {"width": True}, "width: expected a whole number of at least 1, got True"),
        (SwinConfig, {"stochastic_depth": 1.0}, "stochastic_depth: expected a number from 0 to below 1, got 1.0"),
        (TransformerConfig, {"heads": "two"}, "heads: expected a whole number of at least 1, got 'two'"),
        (HyperspectralConfig, {"spatial_width": 100}, "spatial_width 100 is not a multiple of 12 heads"),
        (HyperspectralConfig, {"spatial": 12}, "spatial: expected TransformerConfig, got 12"),
        (HyperspectralConfig, {"optional": 1}, "optional: expected bool, got 1"),
        (ModelConfig, {"months": 13}, "months: expected a whole number from 1 to 12, got 13"),
    ],
)
def test_each_record_refuses_values_in_words(record: type[Any], values: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError) as raised:
        record(**values)
    assert words in str(raised.value)


def test_a_configuration_without_months_is_refused() -> None:
    with pytest.raises(UsageError, match="months: missing"):
        ModelConfig.build(prior=False)


def test_unknown_tiers_are_refused() -> None:
    with pytest.raises(UsageError, match="unknown tier 7"):
        ModelConfig.published(6, tiers=[4, 7])


def test_the_small_model_has_the_published_structure() -> None:
    small, published = CropModel(ModelConfig.small()), ModelConfig.published(6)
    assert 5e5 < sum(parameter.numel() for parameter in small.parameters()) < 2.1e6
    assert small.config.frames == published.frames
    assert (small.config.patch, small.config.inputs) == (published.patch, published.inputs)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"s2": torch.zeros(2, 7, 10, 96, 96)}, r"s2: expected shape \(2, 6, 10, 96, 96\), got \(2, 7, 10, 96, 96\)"),
        ({"enmap": torch.zeros(2, 5, 96, 96)}, "enmap: expected shape"),
        ({"enmap": None}, "needs the input enmap"),
        ({"prior": None}, "needs the input prior"),
        ({"prior": torch.zeros(2, 96, 96)}, "prior: expected shape"),
    ],
)
def test_wrong_inputs_are_refused_in_words(change: dict[str, Tensor | None], words: str) -> None:
    config = tiny()
    with pytest.raises(UsageError, match=words):
        CropModel(config)(**batch_of(config) | change)


def test_inputs_that_the_model_does_not_use_are_ignored() -> None:
    full = batch_of(tiny())
    model = model_of(tiny(enmap=None, prior=False))
    with torch.no_grad():
        for alone, together in zip(model(full["s2"]).values(), model(**full).values(), strict=True):
            assert torch.equal(alone, together)


# Priors and absent EnMAP.


def test_each_tier_sees_the_prior_of_its_own_tier_and_the_logits_above() -> None:
    config = tiny()
    model, batch = model_of(config), batch_of(config)
    other = batch["prior"].clone()
    other[:, 2] = (other[:, 2] + 1) % 5
    with torch.no_grad():
        before, after = model(**batch), model(**batch | {"prior": other})
    changed = {tier: not torch.equal(before[tier], after[tier]) for tier in before}
    assert changed == {1: False, 2: False, 3: True, 4: True}


def test_an_unknown_prior_adds_nothing() -> None:
    """All-zero one-hot: the weights that the prior is multiplied with do not matter."""
    config = tiny(classes={1: 2})
    model, batch = model_of(config), batch_of(config)
    batch["prior"] = torch.full_like(batch["prior"], 255)
    with torch.no_grad():
        before = model(**batch)[1]
        model.get_parameter("heads.tiers.1.0.weight")[:, -3:] = 1e6
        after = model(**batch)[1]
    assert torch.equal(before, after)


def optional() -> ModelConfig:
    config = tiny()
    assert config.enmap
    return replace(config, enmap=replace(config.enmap, optional=True))


def test_the_token_stands_for_absent_enmap() -> None:
    config = optional()
    model, batch = model_of(config), batch_of(config, 3)
    present = torch.tensor([True, False, True])
    empty = batch["enmap"] * present.view(-1, 1, 1, 1)
    with torch.no_grad():
        full, marked = model(**batch), model(**batch, enmap_present=present)
        seen_as_empty = model(**batch | {"enmap": empty})
        without = model(**batch | {"enmap": None})
        assert model.absent_enmap is not None
        model.absent_enmap += 1
        moved = model(**batch, enmap_present=present)
    for tier in full:
        torch.testing.assert_close(marked[tier][[0, 2]], full[tier][[0, 2]])
        assert not torch.allclose(marked[tier][1], full[tier][1], atol=1e-3)
        torch.testing.assert_close(seen_as_empty[tier], marked[tier])
        torch.testing.assert_close(without[tier][1], marked[tier][1])
        torch.testing.assert_close(moved[tier][[0, 2]], full[tier][[0, 2]])
        assert not torch.allclose(moved[tier][1], marked[tier][1], atol=1e-3)


def test_a_sample_with_some_fill_is_present() -> None:
    config = optional()
    model, batch = model_of(config), batch_of(config)
    batch["enmap"][0, :, :20] = 0
    with torch.no_grad():
        by_default, marked = model(**batch), model(**batch, enmap_present=torch.tensor([True, True]))
    for tier, logits in by_default.items():
        assert torch.equal(logits, marked[tier])


def test_the_token_learns_from_samples_without_enmap_only() -> None:
    config = optional()
    model, batch = model_of(config), batch_of(config)
    assert model.absent_enmap is not None
    for present, learns in (([True, True], False), ([True, False], True)):
        model.zero_grad()
        torch.stack(
            [x.square().mean() for x in model(**batch, enmap_present=torch.tensor(present)).values()]
        ).sum().backward()
        assert model.absent_enmap.grad is not None
        assert bool(model.absent_enmap.grad.any()) is learns


def test_by_default_there_is_no_token() -> None:
    assert CropModel(tiny()).absent_enmap is None
    with pytest.raises(UsageError, match="no token for absent EnMAP"):
        to_published(CropModel(optional()))


# Training.


def test_stochastic_depth_grows_from_0_to_a_fifth_over_24_blocks() -> None:
    with torch.device("meta"):
        model = CropModel(ModelConfig.published(6))
    rates = [part.rate for part in model.sentinel2.modules() if isinstance(part, StochasticDepth)]
    assert rates == pytest.approx([i * 0.2 / 23 for i in range(24)])


def test_stochastic_depth_drops_samples_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    depth = StochasticDepth(0.2)
    branch = torch.ones(20_000, 2, 3)
    dropped = depth(branch)
    assert torch.equal(dropped.amin((1, 2)), dropped.amax((1, 2)))
    assert dropped.unique().tolist() == [0, pytest.approx(1.25)]
    assert dropped.mean().item() == pytest.approx(1, abs=0.02)
    assert torch.equal(depth.eval()(branch), branch)


@pytest.mark.slow
def test_checkpointing_changes_nothing() -> None:
    config = tiny()
    batch = batch_of(config)
    results = []
    for chosen in (False, True):
        model = model_of(config).train()
        model.checkpointing = chosen
        torch.manual_seed(3)  # stochastic depth
        logits = model(**batch)
        total_of(logits).backward()
        results.append([*logits.values(), *(parameter.grad for parameter in model.parameters())])
    for kept, computed_again in zip(*results, strict=True):
        assert kept is not None
        assert computed_again is not None
        assert torch.equal(kept, computed_again)


@pytest.mark.slow
def test_checkpointing_keeps_less() -> None:
    config = tiny()
    batch = batch_of(config)
    kept = []
    for chosen in (False, True):
        model = model_of(config)
        model.checkpointing = chosen
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, sizes=sizes: sizes.append(t.nbytes) or t, lambda t: t):
            model(**batch)
        kept.append(sum(sizes))
    assert kept[1] < 0.7 * kept[0]


def test_bfloat16_by_autocast() -> None:
    config = tiny()
    model, batch = model_of(config), batch_of(config)
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(**batch)
    total_of(logits).backward()
    with torch.no_grad():
        exact = model(**batch)
    for tier, values in logits.items():
        assert values.dtype == torch.bfloat16
        assert (values.float() - exact[tier]).abs().mean() < 0.05 * exact[tier].std()
    for parameter in model.parameters():
        assert parameter.grad is not None
        assert parameter.dtype == parameter.grad.dtype == torch.float32
        assert parameter.grad.isfinite().all()


@pytest.mark.slow
def test_the_whole_model_is_one_graph() -> None:
    """Nothing in it depends on values, so torch.compile has no graph breaks."""
    config = optional()
    model, batch = model_of(config), batch_of(config)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    with torch.no_grad():
        for eager, graph in zip(model(**batch).values(), compiled(**batch).values(), strict=True):
            torch.testing.assert_close(eager, graph)


# Published names.


def test_published_weights_come_back_as_they_were() -> None:
    config = tiny(10)
    model = model_of(config)
    again = load_published(to_published(model), config)
    assert not again.training
    own = again.state_dict()
    for key, tensor in model.state_dict().items():
        assert torch.equal(own[key], tensor), key
        assert own[key].data_ptr() != tensor.data_ptr()


def test_dead_weights_are_stated_values() -> None:
    state = to_published(CropModel(tiny()))
    for name in ("s_vit", "p_vit"):
        dead = f"encoders.encoders.EnMAP.{name}."
        assert (state[dead + "norm.weight"] == 1).all()
        for key in ("norm.bias", "cls_token", "pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias"):
            assert not state[dead + key].any()


def test_a_checkpoint_instead_of_its_state_dict_is_refused() -> None:
    with pytest.raises(UsageError, match=r"checkpoint\['state_dict'\]"):
        load_published({"meta": torch.zeros(1), "state_dict": torch.zeros(1)})
    with pytest.raises(UsageError, match="invalid state dict of a published model"):
        load_published({"weight": torch.zeros(1)})
