"""The dual-stream model written plainly, from a published state dict: a judge of the package's model in tests.

Functions of tensors and weights by published key, attention as softmax(Q K^T) V; it shares no code with the package.
Sizes are read from the shapes of the weights, but for those that shapes do not tell.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

Weights = Mapping[str, Tensor]
S2, ENMAP = "encoders.encoders.S2.", "encoders.encoders.EnMAP."


@dataclass(frozen=True)
class PlainSizes:
    """What the shapes of the weights do not tell."""

    #: Frames that merging 1, 2, 3 average.
    steps: tuple[int, int, int]
    window: tuple[int, int, int] = (8, 7, 7)
    spatial_heads: int = 12
    spectral_heads: int = 8
    #: Side of an EnMAP cell.
    cell: int = 4
    #: Whether batch norm uses the batch's own statistics.
    training: bool = False


def plain_logits(
    weights: Weights, sizes: PlainSizes, s2: Tensor, enmap: Tensor | None = None, prior: Tensor | None = None
) -> dict[int, Tensor]:
    """Logits of the tiers that the weights have. s2 (B,T,bands,H,W), enmap (B,bands,h,w), prior (B,4,H,W) int64."""
    features = plain_features(weights, sizes, s2, enmap)
    logits: dict[int, Tensor] = {}
    for tier in (1, 2, 3, 4):
        head = f"heads.heads_dict.level{tier}.head."
        if f"{head}0.weight" not in weights:
            continue
        inputs = [features]
        if logits:
            inputs.append(logits[max(logits)])
        if prior is not None:
            classes = len(weights[f"{head}2.bias"])
            known = prior[:, tier - 1] < classes
            hot = F.one_hot(prior[:, tier - 1] * known, classes) * known.unsqueeze(-1)
            inputs.append(hot.permute(0, 3, 1, 2).to(features.dtype))
        hidden = F.relu(convolution(torch.cat(inputs, 1), weights, head + "0"))
        logits[tier] = F.conv2d(hidden, weights[f"{head}2.weight"], weights[f"{head}2.bias"])
    return logits


def plain_features(weights: Weights, sizes: PlainSizes, s2: Tensor, enmap: Tensor | None) -> Tensor:
    """What the heads see: (B, F, H, W)."""
    maps = swin(weights, sizes, s2)
    x = maps.pop()
    for i in range(3):
        skip = maps.pop()
        x = F.interpolate(x, skip.shape[-2:], mode="bilinear")
        x = convolution_pair(torch.cat([x, skip], 1), weights, f"neck.fusion_list.{i}.", sizes)
    x = convolution_pair(x, weights, "neck.out_conv.", sizes)
    x = F.interpolate(x, s2.shape[-2:], mode="bilinear")
    if enmap is None:
        return x
    y = torch.cat([spatial(weights, sizes, enmap), spectral(weights, sizes, enmap)], 1)
    y = convolution(F.relu(convolution(y, weights, ENMAP + "out_post.0")), weights, ENMAP + "out_post.2")
    return torch.cat([x, convolution_pair(y, weights, "neck.hyper_embed_neck.models.", sizes)], 1)


def swin(weights: Weights, sizes: PlainSizes, s2: Tensor) -> list[Tensor]:
    """Skips 0, 1, 2 and the normalised map of the last stage, frames folded into channels."""
    kernel = weights[S2 + "patch_emd.proj.weight"]
    images = s2.transpose(1, 2)
    if images.shape[2] % kernel.shape[2]:
        missing = images.new_zeros(images[:, :, :1].shape)
        images = torch.cat([images, missing], 2)
    x = F.conv3d(images, kernel, weights[S2 + "patch_emd.proj.bias"], stride=kernel.shape[2:])
    maps = [x.flatten(1, 2)]
    x = x.permute(0, 2, 3, 4, 1)
    for stage in range(4):
        layer = f"{S2}backbone.layers.{stage}."
        block = 0
        while f"{layer}blocks.{block}.norm1.weight" in weights:
            x = swin_block(x, weights, f"{layer}blocks.{block}.", sizes, shifted=block % 2 == 1)
            block += 1
        if stage == 3:
            x = norm(x, weights, S2 + "backbone.norm", 1e-5)
        else:
            x = merge(x, weights, layer + "downsample.", sizes.steps[stage])
        if stage != 2:
            maps.append(x.permute(0, 4, 1, 2, 3).flatten(1, 2))
    return maps


def swin_block(x: Tensor, weights: Weights, block: str, sizes: PlainSizes, shifted: bool) -> Tensor:
    """One block over (B, D, H, W, C)."""
    batch, frames, height, width, channels = x.shape
    side = min(sizes.window[1], height)
    shift = side // 2 if shifted and height > side else 0
    y = norm(x, weights, block + "norm1", 1e-5)
    y = F.pad(y, (0, 0, 0, -width % side, 0, -height % side))
    padded = y.shape[2]
    if shift:
        y = torch.roll(y, (-shift, -shift), (2, 3))
    n = padded // side
    windows = y.view(batch, frames, n, side, n, side, channels).permute(0, 2, 4, 1, 3, 5, 6)
    windows = windows.reshape(batch * n * n, frames * side * side, channels)

    table = weights[block + "attn.relative_position_bias_table"]
    heads, tokens = table.shape[1], windows.shape[1]
    qkv = linear(windows, weights, block + "attn.qkv").view(-1, tokens, 3, heads, channels // heads)
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    attention = q * (channels // heads) ** -0.5 @ k.transpose(-2, -1)
    index = weights[block + "attn.relative_position_index"][:tokens, :tokens].reshape(-1)
    attention = attention + table[index].view(tokens, tokens, heads).permute(2, 0, 1)
    if shift:
        mask = region_mask(frames, padded, side, shift).to(x)
        attention = attention.view(batch, n * n, heads, tokens, tokens) + mask[None, :, None]
        attention = attention.view(-1, heads, tokens, tokens)
    y = (attention.softmax(-1) @ v).transpose(1, 2).reshape(-1, tokens, channels)
    y = linear(y, weights, block + "attn.proj")

    y = y.view(batch, n, n, frames, side, side, channels).permute(0, 3, 1, 4, 2, 5, 6)
    y = y.reshape(batch, frames, padded, padded, channels)
    if shift:
        y = torch.roll(y, (shift, shift), (2, 3))
    x = x + y[:, :, :height, :width]
    return x + mlp(norm(x, weights, block + "norm2", 1e-5), weights, block)


@cache
def region_mask(frames: int, padded: int, side: int, shift: int) -> Tensor:
    """(windows, N, N): 0 between tokens that were in one unshifted neighbourhood, -100 between others."""
    place = torch.arange(padded)
    # After the roll, tokens from the beginning of the map stand at its end.
    wrapped = place >= padded - shift
    row, column = torch.meshgrid(wrapped, wrapped, indexing="ij")
    label = (2 * row + column).expand(frames, -1, -1)
    n = padded // side
    windows = label.reshape(frames, n, side, n, side).permute(1, 3, 0, 2, 4).reshape(n * n, -1)
    return -100.0 * (windows[:, :, None] != windows[:, None, :])


def merge(x: Tensor, weights: Weights, layer: str, step: int) -> Tensor:
    """Patch merging of (B, D, H, W, C)."""
    frames, height, width = x.shape[1:4]
    x = F.pad(x, (0, 0, 0, width % 2, 0, height % 2, 0, frames % step))
    x = torch.stack([x[:, i::step] for i in range(step)]).sum(0) / step
    x = torch.cat([x[:, :, 0::2, 0::2], x[:, :, 1::2, 0::2], x[:, :, 0::2, 1::2], x[:, :, 1::2, 1::2]], -1)
    return norm(x, weights, layer + "norm", 1e-5) @ weights[layer + "reduction.weight"].T


def spatial(weights: Weights, sizes: PlainSizes, enmap: Tensor) -> Tensor:
    """The transformer whose tokens are pixels: (B, features, 3 h, 3 w)."""
    name = ENMAP + "s_vit."
    kernel = weights[name + "patch_emd.proj.weight"][:, :, 0, 0]
    x = enmap.flatten(2).transpose(1, 2) @ kernel.T + weights[name + "patch_emd.proj.bias"]
    x = transformer(x, weights, name, sizes.spatial_heads)
    x = x.transpose(1, 2).reshape(len(x), -1, *enmap.shape[-2:])
    return F.pixel_shuffle(convolution(x, weights, name + "out_conv"), 3)


def spectral(weights: Weights, sizes: PlainSizes, enmap: Tensor) -> Tensor:
    """The transformer whose tokens are bands: (B, features, 3 h, 3 w)."""
    name = ENMAP + "p_vit."
    x = F.avg_pool2d(enmap, sizes.cell).flatten(2)
    x = linear(transformer(x, weights, name, sizes.spectral_heads), weights, name + "out_post")
    return F.pixel_shuffle(convolution(x.view(enmap.shape), weights, name + "out_conv"), 3)


def transformer(x: Tensor, weights: Weights, name: str, heads: int) -> Tensor:
    """Blocks over (B, N, C), positions added first."""
    count, channels = x.shape[1:]
    x = x + sinusoids(count, channels).to(x)
    block = 0
    while f"{name}blocks.{block}.norm1.weight" in weights:
        layer = f"{name}blocks.{block}."
        qkv = linear(norm(x, weights, layer + "norm1", 1e-6), weights, layer + "attn.qkv")
        q, k, v = qkv.view(len(x), count, 3, heads, channels // heads).permute(2, 0, 3, 1, 4)
        attention = (q * (channels // heads) ** -0.5 @ k.transpose(-2, -1)).softmax(-1)
        y = (attention @ v).transpose(1, 2).reshape(x.shape)
        x = x + linear(y, weights, layer + "attn.proj")
        x = x + mlp(norm(x, weights, layer + "norm2", 1e-6), weights, layer)
        block += 1
    return x


@cache
def sinusoids(count: int, channels: int) -> Tensor:
    """(count, channels) float64: sines in even columns, cosines in odd ones."""
    rate = torch.exp(-torch.log(torch.tensor(10000.0, dtype=torch.float64)) / channels)
    places = torch.arange(count, dtype=torch.float64)
    columns = []
    for channel in range(channels):
        angle = places * rate ** (channel - channel % 2)
        columns.append(angle.cos() if channel % 2 else angle.sin())
    return torch.stack(columns, 1)


def mlp(x: Tensor, weights: Weights, block: str) -> Tensor:
    return linear(F.gelu(linear(x, weights, block + "mlp.fc1")), weights, block + "mlp.fc2")


def linear(x: Tensor, weights: Weights, name: str) -> Tensor:
    return F.linear(x, weights[name + ".weight"], weights[name + ".bias"])


def norm(x: Tensor, weights: Weights, name: str, eps: float) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], weights[name + ".weight"], weights[name + ".bias"], eps)


def convolution(x: Tensor, weights: Weights, name: str) -> Tensor:
    return F.conv2d(x, weights[name + ".weight"], weights[name + ".bias"], padding=1)


def convolution_pair(x: Tensor, weights: Weights, name: str, sizes: PlainSizes) -> Tensor:
    """Convolution, batch norm, ReLU, convolution."""
    x = convolution(x, weights, name + "0")
    mean, variance = weights[name + "1.running_mean"], weights[name + "1.running_var"]
    scale, offset = weights[name + "1.weight"], weights[name + "1.bias"]
    if sizes.training:
        x = F.batch_norm(x, None, None, scale, offset, training=True)
    else:
        x = (x - mean[:, None, None]) / (variance + 1e-5).sqrt()[:, None, None] * scale[:, None, None]
        x = x + offset[:, None, None]
    return convolution(F.relu(x), weights, name + "3")
