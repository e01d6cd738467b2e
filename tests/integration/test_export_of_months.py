"""`h2crop export-h5 --months`: the first months of a season, and nothing that was seen later."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from made_stores import ENMAP_FLAGGED, PUBLISHED_WAVELENGTHS, MadeStore, make_store
from typer.testing import CliRunner

from h2crop_data.cli.main import app
from h2crop_data.errors import PlanError, StoreError
from h2crop_data.published.exporting import ExportOptions, export_published
from h2crop_data.training.dataset import CropSamples

FILL = -32768


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> MadeStore:
    """Five samples, one a block, with scenes of 1 July, 10 August, 19 September, 29 October and 8 December.

    The first, third and fourth are of the training split. No pixel of July was ever clear.
    """
    return make_store(
        tmp_path_factory.mktemp("made") / "store",
        blocks=5,
        capacity=1,
        cell_size=1920,
        wavelengths=PUBLISHED_WAVELENGTHS,
        scene_step=40,
        empty_month=6,
        splits=("train", "val", "train"),
    )


@pytest.fixture(scope="module")
def eight(made: MadeStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export of eight months."""
    folder = tmp_path_factory.mktemp("eight") / "out"
    report = export_published(made.folder, folder, ExportOptions(months=8))
    assert (report.months, report.samples, report.left_out) == (8, 2, 3)
    return folder


def filled(months: np.ndarray) -> np.ndarray:
    """Months (month, band, y, x) without gaps, by numpy's own interpolation, pixel by pixel."""
    flat = months.reshape(len(months), -1).astype(float)
    place = np.arange(len(months))
    for column in np.flatnonzero((flat == FILL).any(axis=0)):
        known = flat[:, column] != FILL
        flat[:, column] = np.rint(np.interp(place, place[known], flat[known, column]))
    return flat.reshape(months.shape)


def test_files_have_the_months_asked_for_filled_within_them(made: MadeStore, eight: Path) -> None:
    assert len(list((eight / "h5_data").iterdir())) == 2
    for slot, sample in enumerate(made.samples[2022]["sample"][:2]):
        stored = made.arrays[2022]["s2"][slot]
        assert (stored[6] == FILL).all()
        with h5py.File(eight / f"h5_data/{sample}.h5") as file:
            assert file["S2_data"].shape == (8, 10, 192, 192)
            corner = np.s_[:, :, 90:100, 90:100]
            # July from June and August; January's gap from February.
            np.testing.assert_array_equal(file["S2_data"][:][corner], filled(stored[:8][corner]))
            assert file["EnMAP_data"].shape == (218, 64, 64)


@pytest.mark.parametrize("months", [7, 9])
def test_a_gap_at_the_end_is_filled_from_before_alone(made: MadeStore, months: int, tmp_path: Path) -> None:
    export_published(made.folder, tmp_path / "out", ExportOptions(months=months, split="train"))
    sample, stored = made.samples[2022]["sample"].iloc[0], made.arrays[2022]["s2"][0]
    with h5py.File(tmp_path / f"out/h5_data/{sample}.h5") as file:
        july = file["S2_data"][6]
        assert len(file["S2_data"]) == months
    # Of seven months July has June's numbers; of nine those between June and August, as in a whole year.
    expected = stored[5] if months == 7 else filled(stored[5:8])[1]
    np.testing.assert_array_equal(july[:, 100:, 100:], expected[:, 100:, 100:])


def test_samples_of_later_scenes_are_left_out_by_the_rule_of_the_loader(made: MadeStore, eight: Path) -> None:
    lists = {path.stem: path.read_text().split() for path in (eight / "data_lists").iterdir()}
    for split in ("train", "val"):
        loader = CropSamples(made.folder, split=split, months=8)
        assert lists[split] == list(loader.ids)
    assert lists["test"] == []
    times = made.samples[2022].set_index("sample")["scene_time"]
    assert all(times[sample].month <= 8 for ids in lists.values() for sample in ids)


def test_normalisation_knows_nothing_of_later_months_and_scenes(made: MadeStore, eight: Path) -> None:
    found = json.loads((eight / "normalisation.json").read_text())
    assert "until the end of month 8" in found["what"]
    train = [0, 2, 3]
    s2 = made.arrays[2022]["s2"][train, :8].astype(np.float64)
    for band in range(10):
        numbers = s2[:, :, band][s2[:, :, band] != FILL]
        assert found["S2"]["mean"][band] == pytest.approx(numbers.mean(), rel=1e-9)
        assert found["S2"]["sd"][band] == pytest.approx(numbers.std(), rel=1e-9)
    # Of the training split only the first sample has a scene by the end of August.
    enmap, flags = made.arrays[2022]["enmap"][0], made.arrays[2022]["enmap_quality"][0]
    for band in (0, 100, 217):
        numbers = enmap[band][(flags & ENMAP_FLAGGED == 0) & (enmap[band] != FILL)].astype(np.float64)
        assert found["EnMAP"]["mean"][band] == pytest.approx(numbers.mean(), rel=1e-9)
        assert found["EnMAP"]["sd"][band] == pytest.approx(numbers.std(), rel=1e-9)


def test_the_command_says_what_it_left_out(made: MadeStore, tmp_path: Path) -> None:
    command = ["export-h5", str(made.folder), str(tmp_path / "out"), "--months", "8", "--split", "val"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.stderr
    assert "1 sample(s) left out: their EnMAP scene is later than month 8" in " ".join(done.output.split())
    again = json.loads(CliRunner().invoke(app, [*command, "--json"]).stdout)
    assert (again["months"], again["left_out"], again["already_done"]) == (8, 1, 1)
    with pytest.raises(PlanError, match="differs in months"):
        export_published(made.folder, tmp_path / "out", ExportOptions(split="val"))
    with pytest.raises(StoreError, match=r"all 5 sample\(s\) were left out"):
        export_published(made.folder, tmp_path / "six", ExportOptions(months=6))
