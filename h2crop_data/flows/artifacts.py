"""Artifacts of a run, posted to Prefect's API by a thread of their own."""

from __future__ import annotations

import base64
import contextvars
import hashlib
import queue
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, cast
from uuid import UUID

from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)

from h2crop_data.flows.run_log import Logger
from h2crop_data.redaction import redacted, without_secrets

#: Seconds between two updates of the progress, and the longest wait for the API when a run ends.
PROGRESS_EVERY, LAST_WAIT = 3.0, 15.0
#: Rows of a table that are shown: a browser shows no more in reasonable time.
TABLE_ROWS = 1000

Row = Mapping[str, Any]


@dataclass(frozen=True)
class ArtifactCalls:
    """The calls of Prefect's API that post artifacts."""

    create_table: Callable[..., Any] = create_table_artifact
    create_markdown: Callable[..., Any] = create_markdown_artifact
    create_progress: Callable[..., Any] = create_progress_artifact
    update_progress: Callable[..., Any] = update_progress_artifact


class Artifacts:
    """The artifacts of a run. To be used in a `with` block inside a flow.

    Nothing here waits for the API or fails with it: an artifact that cannot be posted is one line of the log.
    Every store has artifacts of its own, by key, so that Prefect keeps their history from run to run.
    """

    def __init__(
        self, store: str, logger: Logger, *, calls: ArtifactCalls = ArtifactCalls(), last_wait: float = LAST_WAIT
    ) -> None:
        """calls: what posts them. last_wait: seconds to wait for the API when the run ends."""
        self._store, self._logger = without_secrets(store), logger
        self._calls, self._last_wait = calls, last_wait
        self._slug = slug_of(self._store)
        self._posts: queue.SimpleQueue[tuple[str, Callable[[], Any]] | None] = queue.SimpleQueue()
        self._progress: tuple[float, str] | None = None
        self._shown: tuple[float, str] | None = None
        self._progress_id: UUID | None = None
        # Artifacts belong to the run in whose context they are made.
        run = contextvars.copy_context().run
        self._thread = threading.Thread(target=run, args=(self._post_all,), name="artifacts", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._posts.put(None)
        self._thread.join(self._last_wait)
        if self._thread.is_alive():
            self._logger.warning("Prefect's API does not answer: the last artifacts of this run could not be stored")

    def show_table(self, what: str, rows: Sequence[Row], description: str) -> None:
        """Show a table. what: the first part of its key. description: in Markdown."""
        shown = [redacted(dict(row)) for row in rows[:TABLE_ROWS]]
        if len(rows) > TABLE_ROWS:
            description += f"\n\n{len(rows):,} rows; the first {TABLE_ROWS:,} are shown, the run's log has all."
        key, description = self.key(what), without_secrets(description)
        self._put(what, lambda: self._calls.create_table(table=shown, key=key, description=description))

    def show_markdown(self, what: str, text: str) -> None:
        """Show a text in Markdown."""
        key, text = self.key(what), without_secrets(text)
        self._put(what, lambda: self._calls.create_markdown(markdown=text, key=key, description=self._store))

    def show_picture(self, what: str, png: bytes, text: str) -> None:
        """Show a picture above a text in Markdown."""
        data = base64.b64encode(png).decode()
        key, text = self.key(what), f"![{what}](data:image/png;base64,{data})\n\n{without_secrets(text)}\n"
        self._put(what, lambda: self._calls.create_markdown(markdown=text, key=key, description=self._store))

    def show_progress(self, done: int, total: int, text: str) -> None:
        """Show how far the run is; of many calls in some seconds the last one."""
        self._progress = (100.0 * done / total if total else 0.0, without_secrets(f"{done:,} of {total:,} {text}"))

    def key(self, what: str) -> str:
        """The key of an artifact of this store: Prefect allows small letters, digits and hyphens."""
        return f"h2crop-{what}-{self._slug}"

    def _put(self, what: str, post: Callable[[], Any]) -> None:
        self._posts.put((what, post))

    def _post_all(self) -> None:
        """Post what comes until the end is asked for."""
        next_progress = time.monotonic()
        while True:
            try:
                item = self._posts.get(timeout=PROGRESS_EVERY)
            except queue.Empty:
                item = ("progress", self._post_progress)
            if item is None:
                self._post("progress", self._post_progress)
                return
            self._post(*item)
            if time.monotonic() >= next_progress:
                self._post("progress", self._post_progress)
                next_progress = time.monotonic() + PROGRESS_EVERY

    def _post(self, what: str, post: Callable[[], Any]) -> None:
        try:
            post()
        except Exception as error:  # noqa: BLE001 -- whatever the API does, it must not cost the build
            told = without_secrets(f"{type(error).__name__}: {error}".splitlines()[0])
            self._logger.warning("artifact %s could not be stored, Prefect's API failed: %s", what, told)

    def _post_progress(self) -> None:
        """Post the progress where it has changed."""
        progress = self._progress
        if progress is None or progress == self._shown:
            return
        share, text = progress
        if self._progress_id is None:
            made = self._calls.create_progress(share, key=self.key("progress"), description=text)
            self._progress_id = cast(UUID, made)
        else:
            self._calls.update_progress(self._progress_id, share, description=text)
        self._shown = progress


def slug_of(store: str) -> str:
    """The last two parts of a store's place, as keys of artifacts allow them, and eight digits that no other has."""
    parts = re.findall(r"[a-z0-9]+", "-".join(store.rstrip("/").split("/")[-2:]).lower())
    return "-".join([*parts, hashlib.sha256(store.rstrip("/").encode()).hexdigest()[:8]])
