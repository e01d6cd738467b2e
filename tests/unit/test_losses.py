"""The loss is the mean over known pixels, summed over tiers, and 0 where nothing is known."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from h2crop_data.training.losses import hierarchical_loss, tier_losses

CLASSES = {1: 3, 2: 5, 3: 6, 4: 9}


@given(seed=st.integers(0, 2**31), ignored_share=st.sampled_from([0.0, 0.4, 1.0]))
@settings(max_examples=20, deadline=None)
def test_the_loss_is_that_of_a_loop_over_pixels(seed: int, ignored_share: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = {tier: 4 * torch.randn((2, size, 3, 4), generator=generator) for tier, size in CLASSES.items()}
    label = torch.stack([torch.randint(size, (2, 3, 4), generator=generator) for size in CLASSES.values()], 1)
    label[torch.rand(label.shape, generator=generator) < ignored_share] = 255
    expected = {}
    for tier in CLASSES:
        pixels = []
        for sample in range(2):
            for row in range(3):
                for column in range(4):
                    true = int(label[sample, tier - 1, row, column])
                    if true != 255:
                        values = logits[tier][sample, :, row, column].double().tolist()
                        pixels.append(math.log(sum(map(math.exp, values))) - values[true])
        expected[tier] = sum(pixels) / len(pixels) if pixels else 0.0
    found = tier_losses(logits, label.to(torch.uint8))
    assert {tier: value.item() for tier, value in found.items()} == pytest.approx(expected, rel=1e-5, abs=1e-6)
    assert hierarchical_loss(logits, label).item() == pytest.approx(sum(expected.values()), rel=1e-5, abs=1e-6)


def test_without_a_known_pixel_loss_and_gradient_are_zero() -> None:
    logits = torch.randn((2, 5, 3, 3)).requires_grad_()
    label = torch.full((2, 4, 3, 3), 255, dtype=torch.uint8)
    loss = hierarchical_loss({2: logits}, label)
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert (logits.grad == 0).all()


def test_ignored_pixels_get_no_gradient_and_the_others_share_it() -> None:
    logits = torch.zeros((1, 2, 1, 4)).requires_grad_()
    label = torch.tensor([1, 255, 0, -1]).view(1, 1, 1, 4).expand(1, 4, 1, 4)
    hierarchical_loss({1: logits}, label, ignored=(255, -1)).backward()
    assert logits.grad is not None
    # Two known pixels, each with the gradient (probability - truth) / 2.
    assert logits.grad[0, :, 0].tolist() == [[0.25, 0, -0.25, 0], [-0.25, 0, 0.25, 0]]


def test_half_precision_logits_are_summed_in_single_precision() -> None:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn((2, 7, 64, 64), generator=generator).to(torch.bfloat16)
    label = torch.randint(7, (2, 4, 64, 64), generator=generator)
    found = tier_losses({1: logits}, label)[1]
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(tier_losses({1: logits.double()}, label)[1].item(), rel=1e-6)
