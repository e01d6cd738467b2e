"""Draw the two streams of the model with their shapes, for docs/model.md.

python docs/model_drawing.py
"""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from PIL import Image

TARGET = Path(__file__).parent / "images" / "model.png"
INPUT, SENTINEL2, ENMAP, JOINT, HEAD = "#efefef", "#d5e6f5", "#f7e3cc", "#dcefd8", "#eadcf2"
WIDTH, HEIGHT = 2.9, 0.9

#: Name -> centre x, centre y, colour, lines of text: the first one is the title.
BOXES: dict[str, tuple[float, float, str, str]] = {
    "s2": (1.6, 8.6, INPUT, "Sentinel-2\n6 months × 10 bands\n192 × 192"),
    "embedding": (5.3, 8.6, SENTINEL2, "patch embedding\n2 months × 4 × 4 pixels\n128 × 3 × 48 × 48"),
    "stage1": (5.3, 7.2, SENTINEL2, "stage 1: 2 blocks, merging\n4 heads\n256 × 2 × 24 × 24"),
    "stage2": (5.3, 5.8, SENTINEL2, "stage 2: 2 blocks, merging\n8 heads\n512 × 1 × 12 × 12"),
    "stage3": (5.3, 4.4, SENTINEL2, "stage 3: 18 blocks, merging\n16 heads\n1024 × 1 × 6 × 6"),
    "stage4": (5.3, 3.0, SENTINEL2, "stage 4: 2 blocks, norm\n32 heads\n1024 × 6 × 6"),
    "refine": (9.3, 8.6, JOINT, "2 convolutions, resize\n128 × 192 × 192"),
    "fusion3": (9.3, 7.2, JOINT, "resize, join, 2 convolutions\n128 × 48 × 48"),
    "fusion2": (9.3, 5.8, JOINT, "resize, join, 2 convolutions\n256 × 24 × 24"),
    "fusion1": (9.3, 4.4, JOINT, "resize, join, 2 convolutions\n512 × 12 × 12"),
    "enmap": (1.6, 0.7, INPUT, "EnMAP\n218 bands\n64 × 64 (30 m)"),
    "spatial": (5.3, 1.3, ENMAP, "spatial transformer\n6 blocks, 4096 pixels × 768\n128 × 192 × 192"),
    "spectral": (5.3, 0.1, ENMAP, "spectral transformer\n6 blocks, 218 bands × 256 cells\n128 × 192 × 192"),
    "fusion": (9.3, 0.7, ENMAP, "join, 2 + 2 convolutions\n128 × 192 × 192"),
    "features": (13.2, 8.6, JOINT, "features\n256 × 192 × 192"),
    "tier1": (13.2, 7.2, HEAD, "tier 1\n6 classes + background"),
    "tier2": (13.2, 5.8, HEAD, "tier 2\n36 classes + background"),
    "tier3": (13.2, 4.4, HEAD, "tier 3\n82 classes + background"),
    "tier4": (13.2, 3.0, HEAD, "tier 4\n101 classes + background"),
    "prior": (17.0, 5.1, INPUT, "prior\nlast year's crops\n4 tiers × 192 × 192"),
}
#: Arrows between neighbours: from, to, text beside it.
ARROWS = (
    *(("s2", "embedding", ""), ("embedding", "stage1", ""), ("stage1", "stage2", ""), ("stage2", "stage3", "")),
    *(("stage3", "stage4", ""), ("embedding", "fusion3", "skip 0"), ("stage1", "fusion2", "skip 1")),
    *(("stage2", "fusion1", "skip 2"), ("stage4", "fusion1", ""), ("fusion1", "fusion2", "")),
    *(("fusion2", "fusion3", ""), ("fusion3", "refine", "")),
    *(("enmap", "spatial", ""), ("enmap", "spectral", ""), ("spatial", "fusion", "")),
    *(("spectral", "fusion", ""), ("refine", "features", ""), ("features", "tier1", "")),
    *(("tier1", "tier2", "logits"), ("tier2", "tier3", "logits"), ("tier3", "tier4", "logits")),
    *(("prior", f"tier{tier}", "") for tier in (1, 2, 3, 4)),
)


def main() -> None:
    """Draw and write."""
    figure, axes = plt.subplots(figsize=(13.6, 7.8), layout="constrained")
    for name in BOXES:
        draw_box(axes, name)
    for start, end, text in ARROWS:
        draw_arrow(axes, start, end, text)
    # The EnMAP features join those of Sentinel-2; every head sees both.
    draw_path(axes, [(10.75, 0.7), (11.05, 0.7), (11.05, 8.6)])
    for y in (5.8, 4.4, 3.0):
        draw_path(axes, [(11.75, 8.35), (11.4, 8.35), (11.4, y), (11.75, y)])
    note = "Maps: channels × frames\n× rows × columns, for\n6 months and 192 pixels"
    axes.text(1.6, 5.4, note, ha="center", fontsize=9)
    axes.set(xlim=(0, 18.6), ylim=(-0.5, 9.2))
    axes.axis("off")
    TARGET.parent.mkdir(exist_ok=True)
    figure.savefig(TARGET, dpi=100)
    with Image.open(TARGET) as image:
        small = image.convert("RGB").quantize(64, dither=Image.Dither.NONE)
    small.save(TARGET, optimize=True)


def draw_box(axes: Axes, name: str) -> None:
    """A box with its text."""
    x, y, colour, text = BOXES[name]
    corner = (x - WIDTH / 2, y - HEIGHT / 2)
    axes.add_patch(plt.Rectangle(corner, WIDTH, HEIGHT, facecolor=colour, edgecolor="#555555", linewidth=0.8))
    title, *lines = text.split("\n")
    top = 0.15 * len(lines)
    axes.text(x, y + top, title, ha="center", va="center", fontsize=9, weight="bold")
    for i, line in enumerate(lines):
        axes.text(x, y + top - 0.29 * (i + 1), line, ha="center", va="center", fontsize=9)


def draw_arrow(axes: Axes, start: str, end: str, text: str) -> None:
    """From the side of one box that faces the other."""
    (x0, y0, *_), (x1, y1, *_) = BOXES[start], BOXES[end]
    if x0 == x1:
        way = 1 if y1 > y0 else -1
        tail, head = (x0, y0 + way * HEIGHT / 2), (x1, y1 - way * HEIGHT / 2)
    else:
        way = 1 if x1 > x0 else -1
        tail, head = (x0 + way * WIDTH / 2, y0), (x1 - way * WIDTH / 2, y1)
    axes.annotate("", head, tail, arrowprops={"arrowstyle": "-|>", "color": "#333333", "linewidth": 1})
    if text:
        x, y = (tail[0] + head[0]) / 2, (tail[1] + head[1]) / 2
        axes.text(x + 0.12, y + 0.05, text, fontsize=8.5, va="center")


def draw_path(axes: Axes, points: list[tuple[float, float]]) -> None:
    """A line around corners that ends in an arrow."""
    x, y = zip(*points[:-1], strict=True)
    axes.plot(x, y, color="#333333", linewidth=1)
    axes.annotate("", points[-1], points[-2], arrowprops={"arrowstyle": "-|>", "color": "#333333", "linewidth": 1})


if __name__ == "__main__":
    main()
