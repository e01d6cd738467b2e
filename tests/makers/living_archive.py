"""An archive that lives: a tiny region behind a STAC API, to which scenes and parcel files come in time."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import yaml
from misbehaving_api import MisbehavingApi, send, status
from tiny_region import BANDS, CLASSES_ALONE, EAST, EPSG, NORTH, SOUTH, WEST, TinyRegion

FIELDS = [
    ((WEST + 10, SOUTH + 20, WEST + 200, SOUTH + 200), "BTH"),
    ((WEST + 210, SOUTH + 30, WEST + 400, SOUTH + 230), "MIS"),
]


class LivingArchive:
    """A region whose scenes an API lists once they are published."""

    def __init__(self, folder: Path, api: MisbehavingApi, seasons: list[int]) -> None:
        """seasons: of the recipe, whether their files are there or not."""
        folder.mkdir(parents=True)
        self.region, self.api = TinyRegion(folder), api
        self.recipe = folder / "recipe.yaml"
        self.seasons = seasons
        self._write_recipe()

    def _write_recipe(self) -> None:
        source = {"country": "fr", "code_field": "CODE_CULTU", "id_field": "ID_PARCEL", "years": self.seasons}
        document: dict[str, Any] = {
            "name": "living",
            "area": {"bbox": [WEST, SOUTH, EAST, NORTH], "crs": f"EPSG:{EPSG}", "cells": "inside"},
            "seasons": self.seasons,
            "cell_size": 240,
            "split": {"shares": {"train": 1, "val": 0, "test": 0}},
            "store": {"block_capacity": 2},
            "sentinel2": {
                "catalog": self.api.url,
                "collection": "sentinel-2-l2a",
                "bands": list(BANDS),
                "clouds": CLASSES_ALONE,
                "alignment": "none",
            },
            "enmap": {
                "catalog": self.api.url,
                "collection": "ENMAP_HSI_L2A",
                "bands": {"exclude_nm": [[1325, 1395]], "count": 3},
                "coregistration": "none",
                "mask": "none",
            },
            "parcels": {"season": [{**source, "path": "RPG_{year}.gpkg"}]},
        }
        self.recipe.write_text(yaml.safe_dump(document), encoding="utf-8")

    def publish(self) -> None:
        """List every scene of the region."""
        items = copy.deepcopy([*self.region.sentinel2, *self.region.enmap])
        for item in items:
            for asset in item["assets"].values():
                asset["href"] = str(self.region.folder / asset["href"])
        self.api.items[:] = items

    def add_year(self, year: int) -> None:
        """Sentinel-2 and EnMAP of a year, and its parcels."""
        self.region.add_sentinel2(f"S2_{year}_07", f"{year}-07-01T10:50:00Z", 1500, **looks(year, "0701"))
        self.region.add_enmap(1, f"{year}0724T104526", datatake=year)
        self.region.write_parcels(year, FIELDS)

    def reprocess(self, year: int) -> None:
        """The Sentinel-2 scene of a year is replaced by one of a newer baseline with other numbers."""
        gone = f"S2_{year}_07"
        self.region.sentinel2[:] = [item for item in self.region.sentinel2 if item["id"] != gone]
        self.region.add_sentinel2(
            f"S2_{year}_07_again", f"{year}-07-01T10:50:00Z", 1900, baseline="05.10", **looks(year, "0701")
        )

    @contextmanager
    def outage(self) -> Iterator[None]:
        """While it lasts the API refuses to work for a day, whatever it is asked."""
        self.api.faults["0"] = [status(503, Retry_After="86400")] * 1000
        try:
            yield
        finally:
            self.api.faults.clear()

    @contextmanager
    def held_back(self) -> Iterator[Callable[[], bool]]:
        """While it lasts the API keeps searches waiting; gives whether one has come."""
        come, go_on = threading.Event(), threading.Event()

        def wait(handler: BaseHTTPRequestHandler, page: bytes) -> None:
            come.set()
            go_on.wait(120)
            send(handler, page)

        self.api.faults["0"] = [wait]
        try:
            yield come.is_set
        finally:
            self.api.faults.clear()
            go_on.set()


def looks(year: int, day: str) -> dict[str, str]:
    """What tells that two products show one acquisition."""
    return {"datatake": f"{year}{day}T104621", "strip": f"{year}{day}T104822"}
