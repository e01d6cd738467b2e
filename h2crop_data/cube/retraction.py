"""Blocks and scenes kept out of the releases to come, with the reason."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from h2crop_data.cube.storage import BUILD_FOLDER, Storage, canonical_json

RETRACTED = f"{BUILD_FOLDER}/retracted.json"


@dataclass
class Retractions:
    """What was retracted from a store."""

    #: Season -> block -> reason.
    blocks: dict[int, dict[int, str]] = field(default_factory=dict)
    #: Id of a scene that no later plan takes -> reason.
    scenes: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, files: Storage) -> Retractions:
        """Those of a store; none where nothing was ever retracted. Raises StoreError for a damaged record."""
        if not files.exists(RETRACTED):
            return cls()
        document: dict[str, Any] = files.read_json(RETRACTED)
        blocks = {
            int(season): {int(block): reason for block, reason in of_season.items()}
            for season, of_season in document["blocks"].items()
        }
        return cls(blocks, document["scenes"])

    def write(self, files: Storage) -> None:
        """Keep them in the store."""
        blocks = {
            str(season): {str(block): reason for block, reason in sorted(of_season.items())}
            for season, of_season in sorted(self.blocks.items())
        }
        files.replace(RETRACTED, [canonical_json({"blocks": blocks, "scenes": self.scenes}).encode()])
