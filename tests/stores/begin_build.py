"""A store whose build was killed half-way, written by the code of an earlier commit, for the tests of upgrades.

    git worktree add /tmp/before COMMIT
    PYTHONPATH=/tmp/before:/tmp/before/tests/makers python tests/stores/begin_build.py tests/stores/begun-NAME.zip

The archive holds the region with its recipe (`region/`) and the store (`store/`), without what a backup leaves out. It
uses nothing but `h2crop build` and the makers of that commit, so that it runs with the code of any.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np
from tiny_region import SOUTH, WEST, TinyRegion

#: Blocks that are finished when the build is killed, and tries until it is killed between two of the eight.
FINISHED, TRIES = 3, 20
LEFT_OUT = (".build/tmp/", ".build/work/", ".build/lock")


def make_region(folder: Path) -> Path:
    """A region of four cells and two EnMAP scenes, so of eight blocks; gives its recipe."""
    folder.mkdir()
    region = TinyRegion(folder)
    rng = np.random.default_rng(1)
    for month in (3, 7):
        classes = np.where(rng.random((30, 30)) < 0.3, 9, 4).astype(np.uint8)
        region.add_sentinel2(f"S2_2022_{month}", f"2022-{month:02d}-05T10:50:00Z", 900 + month, scl=classes)
    for number, time_ in enumerate(("20220724T104526", "20220820T104526")):
        region.add_enmap(1, time_, datatake=1867 + number)
    for year in (2021, 2022):
        region.write_parcels(year, [((WEST + 10, SOUTH + 20, WEST + 300, SOUTH + 400), "BTH")])
    region.recipe(store={"block_capacity": 1})
    return folder / "recipe.yaml"


def begin(recipe: Path, store: Path) -> bool:
    """Start a build and kill it after some blocks; False where it had ended before."""
    command = [sys.executable, "-m", "h2crop_data", "build", str(recipe), "--out", str(store), "--workers", "1"]
    with subprocess.Popen(command) as build:
        while build.poll() is None and len(list(store.glob(".build/2022/*.json"))) < FINISHED:
            time.sleep(0.0005)
        build.kill()
    blocks = len(list(store.glob(".build/2022/*.json")))
    return build.returncode != 0 and blocks >= FINISHED and not (store / "zarr.json").exists()


def main(archive: Path) -> None:
    """Write the archive."""
    with tempfile.TemporaryDirectory() as place:
        recipe = make_region(Path(place) / "region")
        begun = next((store for k in range(TRIES) if begin(recipe, store := Path(place) / f"try-{k}")), None)
        if begun is None:
            sys.exit(f"no build could be killed half-way in {TRIES} tries")
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as file:
            for folder, name in ((recipe.parent, "region"), (begun, "store")):
                for path in sorted(path for path in folder.rglob("*") if path.is_file()):
                    inside = path.relative_to(folder).as_posix()
                    if not inside.startswith(LEFT_OUT):
                        file.write(path, f"{name}/{inside}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
