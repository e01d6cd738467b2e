"""Scenes that are not used, counted by why."""

from __future__ import annotations

from stac_items import item_of

from h2crop_data.pipeline.source_facts import reasons_left_out
from h2crop_data.sources.scenes import SceneDecision, kept_identity


def decision(name: str, reason: str, taken: bool = False) -> SceneDecision:
    return SceneDecision(name, "sentinel2", "sentinel-2-l2a", None, None, taken, reason)


def test_reasons_that_differ_in_names_and_figures_alone_are_one() -> None:
    scenes = [
        decision("a", "the same acquisition as S2A_31UDP_20220101_0_L2A, which is newer"),
        decision("b", "the same acquisition as S2B_31UEP_20220206_0_L2A, which is newer"),
        decision("c", "cloud cover 92.3 % above sentinel2.max_cloud_cover 80"),
        decision("d", "cloud cover 81 % above sentinel2.max_cloud_cover 80"),
        decision("e", "ENMAP01-____L2A-DT0000072062_20220508T110022Z_001_V010402 covers nothing at 2022-05-08"),
        decision("f", "taken for 3 cells", taken=True),
    ]
    assert reasons_left_out(scenes) == {
        "the same acquisition as …, which is newer": 2,
        "cloud cover N % above sentinel2.max_cloud_cover N": 2,
        "… covers nothing at N-N-N": 1,
    }


def test_items_that_were_changed_have_another_identity_however_their_catalog_writes_times() -> None:
    def identity(**properties: str) -> list[object]:
        return kept_identity(item_of("S2A", s2__processing_baseline="05.11", **properties))

    noon = identity(updated="2024-03-01T12:00:00Z")
    assert noon == identity(updated="2024-03-01T13:00:00+01:00")
    assert noon != identity(updated="2024-03-01T12:00:01Z")
    assert identity(updated="spring") != identity(updated="autumn") != identity()
    assert identity() == identity()
