"""How `validate` asks whether a sample has the id of its cell and scene."""

from __future__ import annotations

import pytest

from h2crop_data.validation.index import is_its_id

CELL = "32631_1920_0261_2932"
ENMAP = "ENMAP01-____L2A-DT0000001867_20220724T104526Z_001_V010302_20230628T165614Z"


@pytest.mark.parametrize(
    ("sample", "scene", "right"),
    [
        (f"{CELL}_20220724T104526", ENMAP, True),
        (f"{CELL}_20220724T104527", ENMAP, False),
        (f"{CELL}_2022", "none", True),
        (f"{CELL}_2023", "none", False),
        # Of scenes of other sources the time cannot be known from the name.
        (f"{CELL}_20220724T104526", "PRISMA_L2D_STD_20220724104526", True),
        ("32631_1920_0261_2933_20220724T104526", "PRISMA_L2D_STD_20220724104526", False),
        (CELL, "PRISMA_L2D_STD_20220724104526", False),
    ],
)
def test_the_id_of_a_sample(sample: str, scene: str, right: bool) -> None:
    assert is_its_id({"sample": sample, "cell": CELL, "scene": scene}, 2022) is right
