"""Every array of a batch moves together, nothing is interpolated, and what is unknown stays unknown."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from made_stores import make_store
from torch import Tensor
from torch.utils.data import default_collate

from h2crop_data.constants import ENMAP_FLAGS, ENMAP_MASK_FLAGS
from h2crop_data.errors import UsageError
from h2crop_data.training.augmentation import (
    Augmentation,
    CutMix,
    Orientation,
    cut_mix,
    draw_dropped_months,
    draw_mixes,
    draw_orientations,
    orient,
    patch_and_step,
)
from h2crop_data.training.dataset import CropSamples
from h2crop_data.training.normalisation import Normalisation
from h2crop_data.training.transforms import BatchTransforms, Masks

FILL = -32768
COARSE_SIDE = 8
SIDE = 3 * COARSE_SIDE
NOTHING = Augmentation(vertical_flip=0, horizontal_flip=0, rotation=0, cut_mix=0)


def numbered_batch(samples: int) -> dict[str, Any]:
    """Each pixel holds the number of its 30 m pixel, unique in the batch; fine ones their place in it as well.

    `s2` has two bands and two months: band 0 the number, band 1 which of the 9 fine pixels.
    """
    numbers = torch.arange(samples * COARSE_SIDE**2).view(samples, COARSE_SIDE, COARSE_SIDE)
    fine = numbers.repeat_interleave(3, 1).repeat_interleave(3, 2)
    within = (3 * (torch.arange(SIDE) % 3)[:, None] + torch.arange(SIDE) % 3).expand(samples, SIDE, SIDE)
    return {
        "id": [f"sample {i}" for i in range(samples)],
        "enmap": numbers[:, None].expand(-1, 4, -1, -1).to(torch.int16),
        "enmap_quality": numbers.to(torch.uint16),
        "s2": torch.stack([fine, within], 1)[:, None].expand(-1, 2, -1, -1, -1).to(torch.int16),
        "s2_clear": (fine % 256)[:, None].expand(-1, 2, -1, -1).to(torch.uint8),
        "label": (fine % 251)[:, None].expand(-1, 4, -1, -1).to(torch.uint8),
        "prior": (fine % 241)[:, None].expand(-1, 4, -1, -1).to(torch.uint8),
        "parcel": (fine + 1).to(torch.uint32),
    }


def assert_aligned(batch: dict[str, Any]) -> None:
    """Of each 30 m pixel the 9 fine pixels lie under it, in every array."""
    coarse = batch["enmap"][:, 0].long()
    fine = coarse.repeat_interleave(3, 1).repeat_interleave(3, 2)
    assert (batch["enmap"].long() == coarse[:, None]).all()
    assert (batch["enmap_quality"].long() == coarse).all()
    assert (batch["s2"][:, :, 0].long() == fine[:, None]).all()
    assert (batch["s2_clear"].long() == (fine % 256)[:, None]).all()
    assert (batch["label"].long() == (fine % 251)[:, None]).all()
    assert (batch["prior"].long() == (fine % 241)[:, None]).all()
    assert (batch["parcel"].long() == fine + 1).all()
    # And of every 30 m pixel there are all nine, once.
    blocks = batch["s2"][:, :, 1].unfold(2, 3, 3).unfold(3, 3, 3).flatten(-2).sort(-1).values
    assert (blocks == torch.arange(9)).all()


def signed(batch: dict[str, Any]) -> dict[str, Any]:
    """PyTorch flips no unsigned 16 and 32 bit numbers."""
    return batch | {"enmap_quality": batch["enmap_quality"].int(), "parcel": batch["parcel"].long()}


def numbers_of(samples: int) -> Normalisation:
    """One that leaves the numbers as they are."""
    bands = {"enmap": 4, "s2": 2}
    return Normalisation(
        source="as they are",
        mean={name: (0.0,) * count for name, count in bands.items()},
        sd={name: (1.0,) * count for name, count in bands.items()},
    )


ORIENTATIONS = st.builds(Orientation, st.booleans(), st.booleans(), st.integers(0, 3))


@given(orientations=st.lists(ORIENTATIONS, min_size=1, max_size=3))
@settings(max_examples=30, deadline=None)
def test_flips_and_turns_keep_arrays_aligned_and_can_be_undone(orientations: list[Orientation]) -> None:
    batch = signed(numbered_batch(len(orientations)))
    before = {name: value.clone() for name, value in batch.items() if isinstance(value, Tensor)}
    turned = orient(batch, orientations)
    assert_aligned(turned)
    assert turned["id"] == batch["id"]
    # Undo: the turn back, then the flips.
    back = orient(turned, [Orientation(quarter_turns=-one.quarter_turns % 4) for one in orientations])
    back = orient(back, [Orientation(one.vertical_flip, one.horizontal_flip) for one in orientations])
    for name, value in before.items():
        assert torch.equal(back[name], value)
        assert torch.equal(batch[name], value)


def test_an_orientation_is_what_its_name_says() -> None:
    image = torch.tensor([[1, 2], [3, 4]])
    assert Orientation(vertical_flip=True).apply(image).tolist() == [[3, 4], [1, 2]]
    assert Orientation(horizontal_flip=True).apply(image).tolist() == [[2, 1], [4, 3]]
    assert Orientation(quarter_turns=1).apply(image).tolist() == [[2, 4], [1, 3]]
    assert Orientation(True, False, 1).apply(image).tolist() == [[4, 2], [3, 1]]


@pytest.mark.slow
@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_a_turn_is_what_sampling_a_grid_gives(turns: int) -> None:
    """The published code turns images by bilinear sampling; by quarter turns the grid falls on the pixels."""
    image = torch.rand((1, 2, 12, 12), generator=torch.Generator().manual_seed(0))
    angle = torch.tensor(turns * torch.pi / 2)
    matrix = torch.tensor([[[angle.cos(), -angle.sin(), 0], [angle.sin(), angle.cos(), 0]]])
    grid = F.affine_grid(matrix, [1, 2, 12, 12], align_corners=False)
    sampled = F.grid_sample(image, grid, align_corners=False, padding_mode="border")
    torch.testing.assert_close(Orientation(quarter_turns=turns).apply(image), sampled, rtol=0, atol=1e-5)


@given(seed=st.integers(0, 2**31), samples=st.integers(1, 5), least=st.sampled_from([0.0, 0.5, 1.0]))
@settings(max_examples=40, deadline=None)
def test_cut_mix_moves_everything_on_the_30_m_grid(seed: int, samples: int, least: float) -> None:
    batch = signed(numbered_batch(samples))
    generator = torch.Generator().manual_seed(seed)
    patch, step = patch_and_step(batch)
    assert (patch, step) == (SIDE, 3)
    mixes = draw_mixes(samples, patch, step, Augmentation(cut_mix=1.0, least_side=least), generator)
    mixed = cut_mix(batch, mixes)
    assert_aligned(mixed)
    origin = mixed["enmap"][:, 0].long() // COARSE_SIDE**2
    for sample, mix in enumerate(mixes):
        expected = torch.full((COARSE_SIDE, COARSE_SIDE), sample)
        if mix is not None:
            assert mix.partner != sample
            assert SIDE * least <= mix.side <= SIDE
            first_row, first_column, side = mix.top // 3, mix.left // 3, mix.side // 3
            assert 0 <= first_row <= COARSE_SIDE - side
            assert 0 <= first_column <= COARSE_SIDE - side
            expected[first_row : first_row + side, first_column : first_column + side] = mix.partner
        assert torch.equal(origin[sample], expected)
        # Pixels keep their place.
        place = torch.arange(COARSE_SIDE**2).view(COARSE_SIDE, COARSE_SIDE)
        assert torch.equal(mixed["enmap"][sample, 0].long() % COARSE_SIDE**2, place)
    assert (samples == 1) == (mixes == [None] * samples)


def test_cut_mix_off_the_grid_is_only_as_published() -> None:
    batch = signed(numbered_batch(2))
    mixes = [CutMix(1, top=4, left=8, side=13), None]
    with pytest.raises(UsageError, match="does not fall on whole pixels of enmap, 3 x 3"):
        cut_mix(batch, mixes)
    mixed = cut_mix(batch, mixes, as_published=True)
    assert torch.equal(mixed["prior"], batch["prior"])
    assert torch.equal(mixed["label"][1], batch["label"][1])
    moved = (mixed["parcel"][0] != batch["parcel"][0]).nonzero()
    assert (moved.min(0).values.tolist(), moved.max(0).values.tolist()) == ([4, 8], [16, 20])
    moved = (mixed["enmap"][0, 0] != batch["enmap"][0, 0]).nonzero()
    assert (moved.min(0).values.tolist(), moved.max(0).values.tolist()) == ([1, 2], [4, 5])


def test_what_is_drawn_has_the_stated_chances() -> None:
    generator = torch.Generator().manual_seed(7)
    orientations = draw_orientations(20_000, Augmentation(), generator)
    flipped = sum(one.vertical_flip for one in orientations), sum(one.horizontal_flip for one in orientations)
    turned = [sum(one.quarter_turns == turns for one in orientations) / 20_000 for turns in range(4)]
    assert [count / 20_000 for count in flipped] == pytest.approx([0.5, 0.5], abs=0.02)
    assert turned == pytest.approx([5 / 8, 1 / 8, 1 / 8, 1 / 8], abs=0.02)
    mixes = draw_mixes(8_000, 192, 3, Augmentation(), generator)
    drawn = [mix for mix in mixes if mix is not None]
    assert len(drawn) / 8_000 == pytest.approx(0.5, abs=0.03)
    sides = torch.tensor([mix.side for mix in drawn]).double()
    assert (sides.min(), sides.max(), sides.mean().item()) == (96, 192, pytest.approx(144, abs=2))
    assert all(mix.side % 3 == mix.top % 3 == mix.left % 3 == 0 for mix in drawn)
    published = draw_mixes(2_000, 192, 3, Augmentation(as_published=True), generator)
    assert {mix.side % 3 for mix in published if mix is not None} == {0, 1, 2}
    assert all(mix.top + mix.side <= 192 and mix.left + mix.side <= 192 for mix in published if mix is not None)


@given(seed=st.integers(0, 2**31), last_month=st.integers(1, 12), chance=st.sampled_from([0.0, 0.3, 1.0]))
@settings(max_examples=30, deadline=None)
def test_of_dropped_months_one_is_kept(seed: int, last_month: int, chance: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    dropped = draw_dropped_months(50, 12, last_month, Augmentation(drop_month=chance), generator)
    assert not dropped[:, :last_month].all(1).any()
    if chance == 1:
        assert (~dropped).sum(1).tolist() == [1] * 50
    elif chance == 0:
        assert not dropped.any()
    elif last_month == 12:
        assert dropped.double().mean().item() == pytest.approx(0.3, abs=0.1)


@given(seed=st.integers(0, 2**31), samples=st.integers(1, 4), as_published=st.booleans())
@settings(max_examples=20, deadline=None)
def test_a_batch_is_transformed_as_a_whole_and_again_by_the_same_seed(
    seed: int, samples: int, as_published: bool
) -> None:
    transforms = BatchTransforms(numbers_of(samples), augmentation=Augmentation(as_published=as_published))
    batch = numbered_batch(samples)
    one, two = (transforms(batch, torch.Generator().manual_seed(seed)) for _ in range(2))
    for name, value in one.items():
        assert torch.equal(value, two[name]) if isinstance(value, Tensor) else value == two[name]
    if not as_published:
        assert_aligned(one)
    assert one["id"] == batch["id"]
    assert {name: one[name].dtype for name in ("s2", "enmap", "label", "prior", "parcel")} == {
        **dict.fromkeys(("s2", "enmap"), torch.float32),
        **dict.fromkeys(("label", "prior", "parcel"), torch.int64),
    }
    assert torch.equal(batch["s2"], numbered_batch(samples)["s2"])


def test_different_seeds_give_different_batches() -> None:
    transforms = BatchTransforms(numbers_of(4), augmentation=Augmentation())
    drawn = [transforms(numbered_batch(4), torch.Generator().manual_seed(seed))["enmap"] for seed in range(5)]
    assert len({tuple(batch.flatten().tolist()) for batch in drawn}) == 5
    # Samples of one batch are drawn by themselves.
    flipping = BatchTransforms(numbers_of(64), augmentation=Augmentation(rotation=0, cut_mix=0))
    corners = flipping(numbered_batch(64), torch.Generator().manual_seed(0))["enmap"][:, 0, 0, 0] % COARSE_SIDE**2
    assert sorted(set(corners.tolist())) == [0, COARSE_SIDE - 1, COARSE_SIDE**2 - COARSE_SIDE, COARSE_SIDE**2 - 1]


def test_samples_of_a_store_become_what_the_model_takes(tmp_path: Any) -> None:
    made = make_store(tmp_path / "store")
    arrays = ["enmap", "s2", "label", "prior", "parcel", "enmap_quality"]
    samples = CropSamples(made.folder, arrays=arrays, months=6, later_scenes=True)
    batch = default_collate([samples[i] for i in range(3)])
    found = BatchTransforms.for_store(made.folder, dtype=torch.bfloat16)(batch)
    truth = {name: torch.from_numpy(made.arrays[2022][name][:3].astype("int64")) for name in batch if name != "id"}
    for name in ("label", "prior", "parcel"):
        assert found[name].dtype == torch.int64
        assert torch.equal(found[name], truth[name])
    assert (found["label"] == 255).any()
    own = Normalisation.of_store(made.folder)
    for name in ("s2", "enmap"):
        stored = truth[name][:, :6] if name == "s2" else truth[name]
        mean, sd = (torch.tensor(values[name]).view(-1, 1, 1) for values in (own.mean, own.sd))
        expected = torch.where(stored == FILL, 0, (stored - mean) / sd)
        assert (stored == FILL).any()
        assert found[name].dtype == torch.bfloat16
        torch.testing.assert_close(found[name].double(), expected.double(), rtol=2**-8, atol=1e-3)
        assert not found[name][stored == FILL].any()


def test_masked_months_pixels_and_flags_are_zero_and_nothing_else() -> None:
    batch = numbered_batch(2)
    batch["s2"] = batch["s2"] + 1
    batch["enmap"] = batch["enmap"] + 1
    batch["enmap_quality"] = torch.zeros((2, COARSE_SIDE, COARSE_SIDE), dtype=torch.uint16)
    batch["enmap_quality"][0, 2, 3] = ENMAP_FLAGS["cloud"] + ENMAP_FLAGS["water"]
    batch["enmap_quality"][1, 0, 0] = ENMAP_FLAGS["water"]
    batch["s2_clear"] = torch.full((2, 2, SIDE, SIDE), 3, dtype=torch.uint8)
    batch["s2_clear"][1, 0, 5, 6] = 1
    whole = BatchTransforms(numbers_of(2))(batch)
    assert (whole["s2"] != 0).all()
    masks = Masks(last_month=1, enmap_flags=("cloud", "haze"), least_clear=2)
    found = BatchTransforms(numbers_of(2), masks=masks)(batch)
    hidden = torch.zeros((2, 2, SIDE, SIDE), dtype=torch.bool)
    hidden[:, 1:] = True
    hidden[1, 0, 5, 6] = True
    assert torch.equal(found["s2"], torch.where(hidden[:, :, None], 0, whole["s2"]))
    hidden = torch.zeros((2, COARSE_SIDE, COARSE_SIDE), dtype=torch.bool)
    hidden[0, 2, 3] = True
    assert torch.equal(found["enmap"], torch.where(hidden[:, None], 0, whole["enmap"]))


def test_our_own_mask_of_enmap_masks_too() -> None:
    batch = numbered_batch(2)
    batch["enmap"] = batch["enmap"] + 1
    batch["enmap_mask"] = torch.zeros((2, COARSE_SIDE, COARSE_SIDE), dtype=torch.uint8)
    batch["enmap_mask"][0, 2, 3] = ENMAP_MASK_FLAGS["cloud"]
    batch["enmap_mask"][1, 1, 0] = ENMAP_MASK_FLAGS["cloud_shadow"]
    batch["enmap_mask"][1, 0, 1] = ENMAP_MASK_FLAGS["unseen"]
    whole = BatchTransforms(numbers_of(2))(batch)["enmap"]
    assert (whole != 0).all()
    for flags, places in {("cloud",): [(0, 2, 3)], ("cloud_shadow", "unseen"): [(1, 1, 0), (1, 0, 1)]}.items():
        found = BatchTransforms(numbers_of(2), masks=Masks(enmap_mask_flags=flags))(batch)["enmap"]
        hidden = torch.zeros((2, COARSE_SIDE, COARSE_SIDE), dtype=torch.bool)
        for place in places:
            hidden[place] = True
        assert torch.equal(found, torch.where(hidden[:, None], 0, whole))
    with pytest.raises(UsageError, match="enmap_mask_flags needs the array enmap_mask"):
        BatchTransforms(numbers_of(2), masks=Masks(enmap_mask_flags=("cloud",)))({"enmap": batch["enmap"]})
    with pytest.raises(UsageError, match="unknown flag of enmap_mask 'haze'; the flags are cloud, cloud_shadow"):
        Masks(enmap_mask_flags=("haze",))


def test_dropped_months_are_zero_sample_by_sample() -> None:
    batch = numbered_batch(40)
    batch["s2"] = batch["s2"] + 1
    dropping = Augmentation(vertical_flip=0, horizontal_flip=0, rotation=0, cut_mix=0, drop_month=0.5)
    found = BatchTransforms(numbers_of(40), augmentation=dropping)(batch, torch.Generator().manual_seed(1))["s2"]
    seen = found.flatten(2).any(2)
    assert seen.any(1).all()
    assert {tuple(months) for months in seen.tolist()} == {(True, True), (True, False), (False, True)}
    assert torch.equal(found[seen], batch["s2"][seen].float())


def test_an_augmentation_that_does_nothing_changes_nothing() -> None:
    plain = BatchTransforms(numbers_of(3))(numbered_batch(3))
    found = BatchTransforms(numbers_of(3), augmentation=NOTHING)(numbered_batch(3), torch.Generator())
    assert all(torch.equal(found[name], value) for name, value in plain.items() if isinstance(value, Tensor))


def test_a_batch_without_enmap_or_labels_is_transformed_too() -> None:
    batch = {"s2": numbered_batch(3)["s2"]}
    found = BatchTransforms(numbers_of(3), augmentation=Augmentation(cut_mix=1))(batch, torch.Generator())
    assert set(found) == {"s2"}
    # Cut-mix still falls on the 30 m grid: the nine fine pixels of each are there.
    blocks = found["s2"][:, :, 1].unfold(2, 3, 3).unfold(3, 3, 3).flatten(-2).sort(-1).values
    assert (blocks == torch.arange(9)).all()


def test_wrong_requests_are_refused() -> None:
    batch = numbered_batch(2)
    with pytest.raises(UsageError, match=r"requires a torch\.Generator"):
        BatchTransforms(numbers_of(2), augmentation=Augmentation())(batch)
    only_s2 = Normalisation(source="one", mean={"s2": (0.0, 0.0)}, sd={"s2": (1.0, 1.0)})
    with pytest.raises(UsageError, match=r"\(one\) has no enmap"):
        BatchTransforms(only_s2)(batch)
    with pytest.raises(UsageError, match="least_clear needs the array s2_clear"):
        BatchTransforms(numbers_of(2), masks=Masks(least_clear=2))({"s2": batch["s2"]})
    with pytest.raises(UsageError, match="enmap_flags needs the array enmap_quality"):
        BatchTransforms(numbers_of(2), masks=Masks(enmap_flags=("cloud",)))({"enmap": batch["enmap"]})
    with pytest.raises(UsageError, match="unknown EnMAP flag 'clouds'"):
        Masks(enmap_flags=("clouds",))
    with pytest.raises(UsageError, match="last_month is 0"):
        Masks(last_month=0)
    with pytest.raises(UsageError, match=r"cut_mix is 1\.5; expected a share"):
        Augmentation(cut_mix=1.5)
    with pytest.raises(UsageError, match="expected a square"):
        patch_and_step({"s2": torch.zeros((1, 1, 6, 9))})
    with pytest.raises(UsageError, match="expected patches of a multiple of 30 m"):
        patch_and_step({"s2": torch.zeros((1, 1, 8, 8))})
