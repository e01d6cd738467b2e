"""The scenes of a region as pieces of work that do not depend on each other."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from h2crop_data.simulate.enmap.products import datatakes_of_pass, products_of_tile
from h2crop_data.simulate.ground import RegionGround
from h2crop_data.simulate.land.rotation import growth_of_code
from h2crop_data.simulate.layout import Layout
from h2crop_data.simulate.overpasses import enmap_passes, sentinel2_passes
from h2crop_data.simulate.plants.phenology import Pairs
from h2crop_data.simulate.sentinel2.products import products_of_pass
from h2crop_data.simulate.settings import Simulation


@dataclass(frozen=True)
class SceneJob:
    """One pass of Sentinel-2, or one tile of an EnMAP pass."""

    sensor: Literal["sentinel2", "enmap"]
    season: int
    #: Place of the pass in its season.
    number: int
    #: EnMAP: place of the datatake in its pass, and of the tile in the datatake.
    datatake: int = 0
    tile: int = 0

    @property
    def name(self) -> str:
        """A name no other job has."""
        return f"{self.sensor}-{self.season}-{self.number:03d}-{self.datatake:02d}-{self.tile:02d}"


def jobs_of(layout: Layout) -> list[SceneJob]:
    """All scenes of a region; EnMAP first, because its tiles take longest."""
    simulation = layout.simulation
    jobs = []
    for season in sorted(simulation.seasons):
        for number, look in enumerate(enmap_passes(simulation, season, layout.centre)):
            for datatake, tiles in enumerate(datatakes_of_pass(layout, look)):
                jobs += [SceneJob("enmap", season, number, datatake, tile) for tile in range(len(tiles))]
    for season in sorted(simulation.seasons):
        passes = sentinel2_passes(simulation, season, layout.centre, layout.bounds)
        jobs += [SceneJob("sentinel2", season, number) for number, _ in enumerate(passes)]
    return jobs


def draw_scene(layout: Layout, folder: Path, job: SceneJob) -> dict[str, Any]:
    """Draw and write a scene; gives `items` by catalog, `scenes` (what is true of each), `megapixels`."""
    simulation = layout.simulation
    ground = ground_of_region(folder, simulation.model_dump_json())
    if job.sensor == "enmap":
        looks = list(enmap_passes(simulation, job.season, layout.centre))
        return products_of_tile(layout, folder, ground, looks[job.number], job.datatake, job.tile)
    passes = list(sentinel2_passes(simulation, job.season, layout.centre, layout.bounds))
    return products_of_pass(layout, folder, ground, passes[job.number])


@lru_cache(maxsize=1)
def ground_of_region(folder: Path, settings: str) -> RegionGround:
    """The ground of a region, kept from scene to scene; settings: the simulation as JSON."""
    simulation = Simulation.model_validate_json(settings)
    pairs = Pairs(tuple(simulation.pairs.narrow), tuple(simulation.pairs.late))
    natural = simulation.natural is not None
    return RegionGround(
        folder / "truth", simulation.place.epsg, simulation.seed, pairs, growth_of_code(), natural=natural
    )
