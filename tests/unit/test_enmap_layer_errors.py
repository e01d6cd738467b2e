"""Simulated layers of EnMAP products that miss cloud and shadow: always of the same kind, at the rates of settings."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import binary_opening, label

from h2crop_data.constants import COARSE
from h2crop_data.simulate.enmap.layer_errors import ERRORS_REACH, missed_layers, widened
from h2crop_data.simulate.enmap.scenes import quality_layers
from h2crop_data.simulate.overpasses import enmap_passes, sun_of_seen_clouds
from h2crop_data.simulate.settings import LayerErrors, Simulation
from h2crop_data.simulate.sky.clouds import CloudKind, CloudLayer, Sun
from h2crop_data.simulate.sky.weather import Sky, Weather, weather_over

NOON = Sun(160, 50)
SIDE = 400
X, Y = np.arange(SIDE) * COARSE + 15.0, np.arange(SIDE)[::-1] * COARSE + 15.0


def layers_of(
    kind: CloudKind, opacity: float, errors: LayerErrors, rows: slice = slice(None)
) -> tuple[Weather, dict[str, NDArray[np.uint8]], dict[str, NDArray[np.uint8]]]:
    """The sky over some rows, the true layers, and those with errors."""
    sky = Sky(7, NOON, (CloudLayer(kind, 0.2, opacity),), 0, 0, natural=True)
    weather = weather_over(sky, X, Y[rows])
    inside = np.ones(weather.cloud.shape, bool)
    true = quality_layers(weather, ~inside, inside)
    wide = widened(X, ERRORS_REACH), widened(Y[rows], -ERRORS_REACH)
    return weather, true, missed_layers(true, weather.shadow, sky, wide, errors)


def test_small_clouds_are_missed_whole() -> None:
    errors = LayerErrors(thin_cloud=0.6, small_cloud=150, missed_shadow=0)
    _, true, found = layers_of("humilis", 1.0, errors)
    cloud = found["quality_cloud"] == 1
    assert cloud.any()
    assert not (cloud & (true["quality_cloud"] == 0)).any()
    disk = np.hypot(*np.mgrid[-2:3, -2:3]) <= 2.5
    # Every part that is left holds a disk of 150 m, but for those that go on beyond the edge.
    parts, number = label(cloud, np.ones((3, 3)))
    edge = np.ones(cloud.shape, bool)
    edge[3:-3, 3:-3] = False
    inner = set(range(1, number + 1)) - set(np.unique(parts[edge]).tolist())
    assert len(inner) > 20
    assert set(np.unique(parts[binary_opening(cloud, disk)]).tolist()) >= inner
    small = true["quality_cloud"].sum() - cloud.sum()
    assert small > 0.2 * true["quality_cloud"].sum()


def test_thin_cloud_is_missed_up_to_its_opacity() -> None:
    weather, _, found = layers_of("stratocumulus", 1.0, LayerErrors(thin_cloud=0.5, small_cloud=0, missed_shadow=0))
    cloud = found["quality_cloud"] == 1
    assert cloud[weather.cloud > 0.85].mean() > 0.99
    assert cloud[(weather.cloud > 0.25) & (weather.cloud < 0.2 + 0.15)].mean() < 0.15
    assert 0.3 < cloud[np.abs(weather.cloud - 0.5) < 0.03].mean() < 0.7


@pytest.mark.parametrize("share", [0.2, 0.5])
def test_shadow_is_missed_in_pieces_at_a_rate(share: float) -> None:
    weather, true, found = layers_of("mediocris", 1.0, LayerErrors(missed_shadow=share))
    seen = (true["quality_cloud_shadow"] == 1) & (weather.shadow > 0.4)
    assert (found["quality_cloud_shadow"] == 0)[seen].mean() == pytest.approx(share, abs=0.08)
    assert not (found["quality_cloud_shadow"] == 1)[~seen].any()


def test_layers_are_the_same_whatever_is_drawn_first() -> None:
    """Pieces of a tile know enough of what is around them."""
    _, _, whole = layers_of("humilis", 1.0, LayerErrors())
    for rows in (slice(0, 64), slice(64, 128), slice(200, 233)):
        _, _, part = layers_of("humilis", 1.0, LayerErrors(), rows)
        for name, layer in part.items():
            np.testing.assert_array_equal(layer, whole[name][rows])


def test_settings_of_older_versions_are_written_as_they_were() -> None:
    plain = Simulation().model_dump(mode="json")["enmap"]
    assert not {"layer_errors", "parallax"} & set(plain)
    later = Simulation(enmap={"layer_errors": {}, "parallax": True})  # type: ignore[arg-type]
    assert later.model_dump(mode="json")["enmap"]["layer_errors"] == LayerErrors().model_dump()
    assert Simulation.model_validate(later.model_dump(mode="json")) == later


def test_a_view_from_the_side_moves_shadows_against_their_clouds() -> None:
    """Looking straight down nothing changes; a satellite on the sun's side makes shadows nearer."""
    assert sun_of_seen_clouds(NOON, 0.0, 12.5).elevation == pytest.approx(NOON.elevation)
    # Southwards with 12.5 degrees: what lies right of the track sees the satellite in the east-south-east.
    right, left = sun_of_seen_clouds(NOON, 20.0, 12.5), sun_of_seen_clouds(NOON, -20.0, 12.5)
    assert right.elevation > NOON.elevation > left.elevation
    assert right.azimuth > NOON.azimuth > left.azimuth
    plain, seen = (
        list(enmap_passes(Simulation(enmap={"parallax": wanted}), 2022, (3.0, 48.6)))  # type: ignore[arg-type]
        for wanted in (False, True)
    )
    assert [one.sun for one in plain] == [one.sun for one in seen]
    assert [one.sky.layers for one in plain] == [one.sky.layers for one in seen]
    assert all(one.sky.sun == one.sun for one in plain)
    assert all(one.sky.sun != one.sun for one in seen)
