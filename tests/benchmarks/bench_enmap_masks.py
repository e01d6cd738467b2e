"""Our mask of EnMAP's clouds and shadows, and DLR's layers, compared with simulated skies.

    python tests/benchmarks/bench_enmap_masks.py [--seeds 100 ...] [--json FILE] [--folder DIR]

Scenes of 7.9 km on five days (March, May, July, September, and February under snow) below seven skies each: none, small
clouds, small clouds with haze, fair-weather clouds, the same with cirrus, broken stratocumulus, clouds of two heights
(1100 and 1900 m); aerosol that the correction left in, a view up to 20 degrees from the side, noise; halls, plastic and
chalk on the ground (tests/benchmarks/enmap_mask_scenes.py). DLR's layers miss clouds narrower than 150 m, clouds up to
an opacity of about 0.45, and 40 % of shadow in pieces (`enmap.layer_errors` of the simulator): what they miss here is
what was put in, not what is known of the real ones. Rules were chosen on seeds 1 to 3; 100 to 102 are reported.

Figures of each mask <m> (dlr, own, both: either of them), as shares of pixels of 30 m, scenes without snow:

- cloud_<m>, thick_<m>, thin_<m>: of ground under clouds of an opacity above 0.25, above 0.5, and 0.1 to 0.25, what is
  called cloud; small_<m>: of ground under clouds of less than 1 ha (opacity above 0.25); small_seen_<m>: of these
  clouds, those of which some pixel is called cloud
- shadow_<m>: of ground with little cloud over it (opacity below 0.1) that lacks 30 % of the direct light and more,
  what is called shadow or cloud; inside_<m>: the same where the clouds that cast it stand over the scene and have one
  height; two_heights_<m>: where they have two; deep_<m>: of both the ground that lacks half the light
- false_cloud_<m>: of clear ground (no cirrus, haze, cloud or shadow), what is called cloud; on_bright_<m>: of clear
  ground with more than 0.16 in blue; on_haze_<m>, on_cirrus_<m>: of ground with haze (above 0.3), with cirrus (opacity
  above 0.1) and nothing else
- false_shadow_<m>: of clear ground, what is called shadow; away_<m>: the same more than 90 m from any shadow
- false_without_<m>, bright_without_<m>: of clear ground of scenes without clouds, and of that ground with more than
  0.16 in blue, what is called either
- snow.*: the same of scenes with snow; on_snow_<m>: of clear snow, what is called cloud

Besides: heights_found: of scenes in which 1 % and more is cloud of one height those whose height is found,
height_error_m: the median error of these, scenes, s_a_scene (seconds of CPU for 1000 x 1000 pixels).
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from bench_clouds import rounded
from enmap_mask_scenes import SKIES, MaskScene, mask_scenes
from numpy.typing import NDArray

from h2crop_data.cast_shadows import apparent_sun, moved_along
from h2crop_data.constants import COARSE, ENMAP_MASK_FLAGS
from h2crop_data.disks import dilated
from h2crop_data.enmap.own_mask import OwnMask, own_mask
from h2crop_data.enmap.shadows import satellite_azimuths
from h2crop_data.simulate.sky.clouds import FORMS

REPORTED = (100, 101, 102)
#: Latitude of the default place, and pixels of a hectare.
LATITUDE, HECTARE = 48.6, 10_000 / COARSE**2
#: Bounds of the figures: those of hits below, of false ones above.
AT_LEAST = {"cloud_own": 0.97, "small_own": 0.8, "inside_own": 0.85, "shadow_own": 0.7}
AT_MOST = {"false_cloud_own": 0.005, "false_without_own": 0.005, "away_own": 0.01, "bright_without_own": 0.02}

Mask = NDArray[np.bool_]


class Shares:
    """Pixels that something holds for, of those that count, by name."""

    def __init__(self) -> None:
        """Nothing counted yet."""
        self.counts: dict[str, list[int]] = defaultdict(lambda: [0, 0])

    def add(self, name: str, counted: Mask, holds: Mask) -> None:
        """Count the pixels of a mask, and those of them that hold."""
        self.counts[name][0] += int(counted.sum())
        self.counts[name][1] += int((counted & holds).sum())

    def shares(self) -> dict[str, float]:
        """Of what was counted at all."""
        return {name: holds / counted for name, (counted, holds) in self.counts.items() if counted}


def main() -> int:
    """Judge and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(REPORTED))
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--folder", type=Path, help="keep regions here; default: a folder that is removed")
    arguments = parser.parse_args()
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="bench_enmap_masks"))
    try:
        figures = measure(arguments.seeds, folder)
    finally:
        if arguments.folder is None:
            shutil.rmtree(folder, ignore_errors=True)
    for name, bound in AT_LEAST.items():
        print(f"{name}: {figures[name]:.3f} (at least {bound}) {'ok' if figures[name] >= bound else 'MISSED'}")
    for name, bound in AT_MOST.items():
        print(f"{name}: {figures[name]:.4f} (at most {bound}) {'ok' if figures[name] <= bound else 'MISSED'}")
    text = json.dumps(rounded(figures))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(rounded(figures), indent=1, sort_keys=True) + "\n", encoding="utf-8")
    print(text)
    return 0


def measure(seeds: list[int], folder: Path) -> dict[str, Any]:
    """The figures over the scenes of some seeds."""
    plain, snowy = Shares(), Shares()
    errors: list[float] = []
    scenes, wanted, seconds, pixels = 0, 0, 0.0, 0
    for seed in seeds:
        for scene in mask_scenes(seed, folder / f"region-{seed}"):
            start = time.process_time()
            own = mask_of(scene)
            seconds += time.process_time() - start
            pixels += own.bits.size
            scenes += 1
            judge(snowy if (scene.weather.snow > 0.02).any() else plain, scene, own)
            kinds = SKIES[scene.sky][0]
            if len(kinds) == 1 and (scene.weather.cloud > 0.25).mean() >= 0.01:
                wanted += 1
                errors += [] if own.height is None else [abs(own.height - FORMS[kinds[0]].height)]
        print(f"seed {seed}: {scenes} scenes so far", flush=True)
    return {
        **plain.shares(),
        **{f"snow.{name}": share for name, share in snowy.shares().items()},
        "heights_found": len(errors) / max(wanted, 1),
        "height_error_m": float(np.median(errors)) if errors else None,
        "scenes": scenes,
        "s_a_scene": seconds / pixels * 1e6,
    }


def mask_of(scene: MaskScene) -> OwnMask:
    """Our mask, from what an item says of a scene: not on which side the satellite stands."""
    sides = satellite_azimuths(LATITUDE)
    suns = [apparent_sun(scene.sun, (side, scene.view[1])) for side in sides]
    return own_mask(scene.reflectance, np.ones(scene.water.shape, bool), suns, COARSE)


def judge(shares: Shares, scene: MaskScene, own: OwnMask) -> None:
    """Count what masks say of a scene."""
    sky, kinds = scene.weather, SKIES[scene.sky][0]
    masks = {
        "dlr": (scene.layers["quality_cloud"] == 1, scene.layers["quality_cloud_shadow"] == 1),
        "own": tuple((own.bits & ENMAP_MASK_FLAGS[name]) != 0 for name in ("cloud", "cloud_shadow")),
    }
    masks["both"] = (masks["dlr"][0] | masks["own"][0], masks["dlr"][1] | masks["own"][1])
    cloud, shaded = sky.cloud > 0.25, (sky.cloud < 0.1) & (sky.shadow > 0.3)
    nothing = (sky.cloud < 0.02) & (sky.shadow < 0.05)
    veiled = (sky.cirrus > 0.01) | (sky.haze > 0.05)
    clear, bright = nothing & ~veiled, scene.ground_blue > 0.16
    away = clear & ~dilated(sky.shadow > 0.05, 3)
    _, parts, facts, _ = cv2.connectedComponentsWithStats(cloud.astype(np.uint8), connectivity=8)
    small = np.flatnonzero(facts[:, cv2.CC_STAT_AREA] < HECTARE)
    for name, (found, dark) in masks.items():
        either = found | dark
        shares.add(f"cloud_{name}", cloud, found)
        shares.add(f"thick_{name}", sky.cloud > 0.5, found)
        shares.add(f"thin_{name}", (sky.cloud > 0.1) & ~cloud, found)
        shares.add(f"small_{name}", np.isin(parts, small) & cloud, found)
        shares.add(f"small_seen_{name}", np.ones(len(small), bool), np.isin(small, np.unique(parts[found])))
        shares.add(f"shadow_{name}", shaded, either)
        if kinds:
            sun, highest = apparent_sun(scene.sun, scene.view), max(FORMS[kind].height for kind in kinds)
            inside = moved_along(np.ones(cloud.shape, bool), sun, highest, COARSE)
            shares.add(f"inside_{name}" if len(kinds) == 1 else f"two_heights_{name}", shaded & inside, either)
            shares.add(f"deep_{name}", shaded & inside & (sky.shadow > 0.5), either)
        shares.add(f"false_cloud_{name}", clear & (sky.snow < 0.02), found)
        shares.add(f"on_bright_{name}", clear & bright & (sky.snow < 0.02), found)
        shares.add(f"on_snow_{name}", clear & (sky.snow > 0.1), found)
        shares.add(f"on_haze_{name}", nothing & (sky.haze > 0.3) & (sky.cirrus < 0.01), found)
        shares.add(f"on_cirrus_{name}", nothing & (sky.cirrus > 0.1), found)
        shares.add(f"false_shadow_{name}", clear, dark)
        shares.add(f"away_{name}", away, dark)
        if not kinds:
            shares.add(f"false_without_{name}", clear, either)
            shares.add(f"bright_without_{name}", clear & bright & (sky.snow < 0.02), either)


if __name__ == "__main__":
    raise SystemExit(main())
