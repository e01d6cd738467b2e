"""Offsets of Sentinel-2 decided by pixels only: how many of 1000 simulated scenes are decided, how many wrongly.

    python tests/benchmarks/bench_offset_decision.py [--seeds 100 ...]

Twenty tiles a seed, of fields, dark woods, open water with and without glint, bright soil, dry grass and snow, each
with ten scenes by chance clear, hazy, under a veil that the scene classification misses, under broken clouds, overcast
(80 to 97 % cloud), wholly closed, or with too much aerosol taken out. A third of the tiles have no offset in any scene,
a third have it in all, a third in some (tests/makers/offset_scenes.py). Items of the scenes say nothing; in every
second tile three other scenes state theirs.

- decided: share of the scenes that were decided; wrong: scenes decided wrongly
- with_ground: of scenes that surely show ground in 50 pixels of 16384, the share decided
- <kind>: the same share for a kind of ground or sky
- least_decided: the share of the 200 scenes of the seed with the fewest decided

The limits were chosen on seeds 0 to 9 and with 100 to 102 in view; 103, 104 and 200 to 204 are held out.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "makers"))

from offset_scenes import drawn_tiles, verdicts_on

from h2crop_data.sentinel2.offset_evidence import NO_GROUND_SEEN

TILES = 20


def main() -> None:
    """Decide, count, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[100, 101, 102, 103, 104])
    decided: dict[str, list[bool]] = defaultdict(list)
    wrong, shares = 0, []
    seeds = parser.parse_args().seeds
    for seed in seeds:
        of_seed = []
        for scenes, stated in drawn_tiles(seed, TILES):
            for scene, verdict in zip(scenes, verdicts_on(scenes, stated), strict=True):
                is_decided = verdict.offset is not None
                wrong += is_decided and verdict.offset != scene.offset
                of_seed.append(is_decided)
                for kind in (scene.ground, scene.sky):
                    decided[kind].append(is_decided)
                if verdict.reason != NO_GROUND_SEEN:
                    decided["with_ground"].append(is_decided)
        decided["decided"] += of_seed
        shares.append(sum(of_seed) / len(of_seed))
    figures = {kind.replace(" ", "_"): round(sum(of) / len(of), 3) for kind, of in sorted(decided.items())}
    scenes = len(decided["decided"])
    print(json.dumps({"scenes": scenes, "wrong": wrong, "least_decided": round(min(shares), 3), **figures}))


if __name__ == "__main__":
    main()
