"""The Sentinel-2 stream: a Swin transformer over months, rows and columns (Liu et al. 2022, Video Swin, 2106.13230).

Maps are (B, frames, rows, columns, channels) between blocks. Windows hold all frames and 7 x 7 tokens; odd blocks use
windows that are shifted by 3. Tokens that pad a map to whole windows are zeros and take part in attention.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from h2crop_data.training.model.attention import Mlp, StochasticDepth, initialise, run_block
from h2crop_data.training.model.config import ModelConfig, SwinConfig

#: Added to the attention between tokens that only the shift made neighbours.
MASKED = -100.0


class WindowAttention(nn.Module):
    """Attention within windows, with a learned bias for each relative position and head."""

    def __init__(self, width: int, heads: int, window: tuple[int, int, int]) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.projection = nn.Linear(width, width)
        offsets = (2 * window[0] - 1) * (2 * window[1] - 1) * (2 * window[2] - 1)
        self.bias_table = nn.Parameter(torch.empty(offsets, heads))
        nn.init.trunc_normal_(self.bias_table, std=0.02)

    def forward(self, windows: Tensor, positions: Tensor, mask: Tensor | None) -> Tensor:
        """windows: (B, W, N, width). positions: (N, N) int64, rows of the table. mask: (W, N, N) float or None.

        Returns (B, W, N, width).
        """
        batch, count, tokens, width = windows.shape
        qkv = self.qkv(windows).view(batch, count, tokens, 3, self.heads, width // self.heads).permute(3, 0, 1, 4, 2, 5)
        bias = self.bias_table.index_select(0, positions.flatten())
        bias = bias.view(tokens, tokens, self.heads).permute(2, 0, 1).to(qkv.dtype)
        if mask is None:
            query, key, value = qkv.flatten(1, 2)
            bias = bias.unsqueeze(0)
        else:
            # Windows stand beside the heads, so that one mask serves every sample of the batch.
            query, key, value = qkv.flatten(2, 3)
            bias = (bias + mask.to(bias.dtype).unsqueeze(1)).flatten(0, 1).unsqueeze(0)
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        attended = attended.view(batch, count, self.heads, tokens, -1).transpose(2, 3)
        projected: Tensor = self.projection(attended.reshape(batch, count, tokens, width))
        return projected


class SwinBlock(nn.Module):
    """A pre-norm block: attention within windows, then an MLP, both residual."""

    def __init__(self, config: SwinConfig, stage: int, side: int, shift: int, depth_rate: float) -> None:
        """side: tokens along a window. shift: of the windows, in tokens; 0 for none."""
        super().__init__()
        width, heads = config.widths[stage], config.heads[stage]
        self.side = side
        self.shift = shift
        self.attention_norm = nn.LayerNorm(width)
        self.attention = WindowAttention(width, heads, config.window)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = Mlp(width, config.mlp_ratio * width)
        self.stochastic_depth = StochasticDepth(depth_rate)

    def forward(self, tokens: Tensor, positions: Tensor, mask: Tensor | None) -> Tensor:
        """tokens: (B, D, H, W, width). positions, mask: of the stage, see WindowAttention. Returns the same shape."""
        tokens = tokens + self.stochastic_depth(self.attend(self.attention_norm(tokens), positions, mask))
        result: Tensor = tokens + self.stochastic_depth(self.mlp(self.mlp_norm(tokens)))
        return result

    def attend(self, tokens: Tensor, positions: Tensor, mask: Tensor | None) -> Tensor:
        """Attention of a whole map (B, D, H, W, width): pad, shift, cut into windows, and back."""
        batch, frames, rows, columns, width = tokens.shape
        side, shift = self.side, self.shift
        down, right = -rows % side, -columns % side
        if down or right:
            tokens = F.pad(tokens, (0, 0, 0, right, 0, down))
        if shift:
            tokens = tokens.roll((-shift, -shift), (2, 3))
        high, wide = (rows + down) // side, (columns + right) // side
        windows = tokens.view(batch, frames, high, side, wide, side, width).permute(0, 2, 4, 1, 3, 5, 6)
        windows = windows.reshape(batch, high * wide, frames * side * side, width)
        windows = self.attention(windows, positions, mask)
        windows = windows.view(batch, high, wide, frames, side, side, width).permute(0, 3, 1, 4, 2, 5, 6)
        tokens = windows.reshape(batch, frames, high * side, wide * side, width)
        if shift:
            tokens = tokens.roll((shift, shift), (2, 3))
        return tokens[:, :, :rows, :columns]


class PatchMerging(nn.Module):
    """Halves rows and columns and doubles channels; averages pairs of frames where `step` is 2."""

    def __init__(self, width: int, step: int) -> None:
        super().__init__()
        self.step = step
        self.norm = nn.LayerNorm(4 * width)
        self.reduction = nn.Linear(4 * width, 2 * width, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens: (B, D, H, W, C). Returns (B, ceil(D / step), ceil(H / 2), ceil(W / 2), 2 C).

        Odd sizes are padded with zeros, frames too: the last of three frames is averaged with zeros.
        """
        batch, frames, rows, columns, width = tokens.shape
        if rows % 2 or columns % 2 or frames % self.step:
            tokens = F.pad(tokens, (0, 0, 0, columns % 2, 0, rows % 2, 0, frames % self.step))
        if self.step > 1:
            tokens = tokens.reshape(batch, -1, self.step, *tokens.shape[2:4], width).mean(2)
        corners = [tokens[:, :, row::2, column::2] for column in (0, 1) for row in (0, 1)]
        merged: Tensor = self.reduction(self.norm(torch.cat(corners, -1)))
        return merged


class SwinStage(nn.Module):
    """Blocks over maps of one size, then patch merging but for the last stage."""

    positions: Tensor
    mask: Tensor | None

    def __init__(self, config: ModelConfig, stage: int, depth_rates: list[float]) -> None:
        super().__init__()
        swin = config.sentinel2
        frames = config.frames[stage]
        size = stage_size(config, stage)
        side = min(size, swin.window[1])
        # A map that one window covers is not shifted.
        shift = side // 2 if size > side else 0
        self.blocks = nn.ModuleList(
            SwinBlock(swin, stage, side, shift * (i % 2), rate) for i, rate in enumerate(depth_rates)
        )
        self.merging: PatchMerging | None = None
        if stage < len(swin.depths) - 1:
            self.merging = PatchMerging(swin.widths[stage], step=2 if frames > 1 else 1)
        tokens = frames * side * side
        table_rows = torch.from_numpy(relative_positions(swin.window)[:tokens, :tokens].copy())
        self.register_buffer("positions", table_rows, persistent=False)
        mask = torch.from_numpy(shift_mask(frames, size, side, shift)) if shift else None
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, tokens: Tensor, checkpointing: bool) -> Tensor:
        """tokens: (B, D, H, W, C) of this stage's size. Returns the map of the next stage, see PatchMerging."""
        for block in self.blocks:
            tokens = run_block(block, checkpointing, tokens, self.positions, self.mask if block.shift else None)
        return self.merging(tokens) if self.merging is not None else tokens


class Sentinel2Stream(nn.Module):
    """Months of Sentinel-2 to a coarse map and three finer ones for the neck."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        swin = config.sentinel2
        self.checkpointing = False
        self.patch_embedding = nn.Conv3d(len(config.s2_bands), swin.width, swin.token, stride=swin.token)
        rates = np.linspace(0, swin.stochastic_depth, sum(swin.depths)).tolist()
        starts = np.cumsum((0, *swin.depths)).tolist()
        self.stages = nn.ModuleList(
            SwinStage(config, stage, rates[starts[stage] : starts[stage + 1]]) for stage in range(len(swin.depths))
        )
        self.norm = nn.LayerNorm(swin.widths[-1])
        initialise(self)

    def forward(self, s2: Tensor) -> tuple[Tensor, list[Tensor]]:
        """s2: (B, T, bands, H, W) float.

        Returns the map of the last stage (B, 8 C, H/32, W/32), sizes rounded up, and the skips of the neck: the patch
        embedding and the results of merging 1 and 2, frames folded into channels (channel-major):
        (B, C D0, H/4, W/4), (B, 2 C D1, H/8, W/8), (B, 4 C D2, H/16, W/16), with `frames` D of the configuration.
        """
        months = self.patch_embedding.stride[0]
        images = s2.transpose(1, 2)
        if images.shape[2] % months:
            images = F.pad(images, (0, 0, 0, 0, 0, -images.shape[2] % months))
        embedded: Tensor = self.patch_embedding(images)
        skips = [embedded.flatten(1, 2)]
        tokens = embedded.permute(0, 2, 3, 4, 1).contiguous()
        for stage in self.stages:
            tokens = stage(tokens, self.checkpointing)
            if len(skips) < 3:
                skips.append(tokens.permute(0, 4, 1, 2, 3).flatten(1, 2))
        # The last stage has one frame.
        last = self.norm(tokens).permute(0, 4, 1, 2, 3).flatten(1, 2)
        return last, skips


def stage_size(config: ModelConfig, stage: int) -> int:
    """Tokens along the map of a stage (0..3)."""
    size = config.patch // config.sentinel2.token[1]
    for _ in range(stage):
        size = -(-size // 2)
    return size


def relative_positions(window: tuple[int, int, int]) -> NDArray[np.int64]:
    """Row of the bias table for each pair of tokens of a full window: (N, N) int64, N = frames * rows * columns.

    A smaller window of N' tokens uses the first N' rows and columns, as the published code does. That is the true
    relative position where only frames are fewer; for the 6 x 6 windows of the last stage it is not, and is kept.
    """
    places = np.indices(window).reshape(3, -1)
    offsets = places[:, :, None] - places[:, None, :] + np.array(window)[:, None, None] - 1
    sizes = tuple(2 * size - 1 for size in window)
    rows: NDArray[np.int64] = np.ravel_multi_index(tuple(offsets), sizes).astype(np.int64)
    return rows


def shift_mask(frames: int, size: int, side: int, shift: int) -> NDArray[np.float32]:
    """What is added to attention in shifted windows: (W, N, N) float32, MASKED between tokens of different regions.

    The map, padded to whole windows, is rolled by `shift`; its regions along an axis are all but the last window, the
    last window up to the shift, and what was rolled in from the other side.
    """
    padded = size + -size % side
    region = np.zeros(padded, np.int64)
    region[-side:] = 1
    region[-shift:] = 2
    count = padded // side
    regions = np.broadcast_to(3 * region[:, None] + region, (frames, padded, padded))
    windows = regions.reshape(frames, count, side, count, side).transpose(1, 3, 0, 2, 4).reshape(count**2, -1)
    return np.where(windows[:, :, None] == windows[:, None, :], 0, MASKED).astype(np.float32)
