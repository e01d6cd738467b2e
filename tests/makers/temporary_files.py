"""What lies under temporary names in a store on a disk."""

from __future__ import annotations

from pathlib import Path


def unfinished(store: Path) -> list[Path]:
    """Files, links and folders under temporary names, but for what a builder needs to hold the store."""
    temporary = store / ".build/tmp"
    holds = {holder.parent for holder in temporary.glob("*/holder")}
    return [path for path in temporary.rglob("*") if path not in holds and path.name != "holder"]
