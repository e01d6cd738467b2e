"""How the inputs of a finished block differ from those of today, in the words that all sources share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

#: Why a block would come out differently: scenes that are there now and were not when it was planned, or had not been
#: acquired then; products that were processed again (`A -> B` where the name changed); scenes that are not used any
#: more; other content, such as parcels; another crop table; other settings; a new version of the algorithm; what its
#: scenes are matched with; scenes that could not be read when it was built; and what no source can say.
ChangeKind = Literal[
    "added",
    "acquired since",
    "reprocessed",
    "gone",
    "content",
    "crop tables",
    "settings",
    "algorithm",
    "matching",
    "unread",
    "other",
]


@dataclass(frozen=True)
class InputChange:
    """One way in which the inputs of a block differ from those it was built from."""

    kind: ChangeKind
    #: The scenes it is about, by id; of crop tables their countries.
    scenes: tuple[str, ...] = ()
