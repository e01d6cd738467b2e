"""The ids of the published dataset's samples: EnMAP time and tile, place in the scene, MGRS tile."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime

from h2crop_data.mgrs import tile_square

#: How an id looks (inferred from the ids; their makers do not explain them).
SAMPLE_ID = re.compile(
    r"(?P<time>\d{8}T\d{6})Z_(?P<number>\d{3})_x(?P<column>\d+)_y(?P<row>\d+)_T(?P<tile>\d{2}[C-X][A-Z]{2})"
)


@dataclass(frozen=True)
class PublishedId:
    """What the id of a published sample says, `20220613T112220Z_003_x384_y704_T32ULV`."""

    text: str
    time: datetime
    #: Number of the EnMAP tile in its datatake, as text of three digits.
    number: str
    #: Of the sample's upper left pixel in the EnMAP scene.
    column: int
    row: int
    #: MGRS tile, `32ULV`.
    tile: str

    @classmethod
    def parse(cls, text: str) -> PublishedId:
        """Parse an id. Raises ValueError for an invalid one."""
        match = SAMPLE_ID.fullmatch(text)
        if match is None:
            raise ValueError(f"invalid id {text!r}; expected one like 20220613T112220Z_003_x384_y704_T32ULV")
        try:
            time = datetime.strptime(match["time"], "%Y%m%dT%H%M%S").replace(tzinfo=UTC)
        except ValueError:
            raise ValueError(f"invalid id {text!r}: it does not begin with a time") from None
        tile_square(match["tile"])
        return cls(text, time, match["number"], int(match["column"]), int(match["row"]), match["tile"])

    @property
    def season(self) -> int:
        """The calendar year."""
        return self.time.year

    @property
    def scene(self) -> str:
        """What the id has of the EnMAP scene, `20220613T112220Z_003`."""
        return f"{self.time:%Y%m%dT%H%M%S}Z_{self.number}"


def looks_published(text: str) -> bool:
    """Whether a text has the form of such an id, whatever it says."""
    return SAMPLE_ID.fullmatch(text) is not None
