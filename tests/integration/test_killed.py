"""Builds killed at random moments end byte for byte as if nobody had touched them (the long run: `make kill-sweep`)."""

from __future__ import annotations

from pathlib import Path

from killed_builds import Sweep, differences


def test_killed_builds_end_as_if_nothing_had_happened(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, seed=10)
    result = sweep.run(10)
    assert result.failures == []
    assert sum(result.builds.values()) == 10
    assert result.kills >= 10
    # The comparison sees what it should.
    store = sweep.folder / "again"
    (store / "2022/s2/c.9.0.0.0.0").write_bytes(b"")
    (store / "2022/s2/c.0.0.0.0.0").write_bytes(b"")
    (store / "2022/s2/c.1.0.0.0.0").unlink()
    assert differences(store, sweep.reference) == [
        "stray file 2022/s2/c.9.0.0.0.0",
        "lost file 2022/s2/c.1.0.0.0.0",
        "2022/s2/c.0.0.0.0.0 differs",
    ]
