"""Which version of a file a build reads: the first it opened. One that is replaced meanwhile is never mixed with it.

The version of a remote file is what its server says: ETag, length, time of change. Where the server heeds
`If-Match`, it is asked once, and GDAL asks for that version alone; elsewhere it is asked whenever a file is opened.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from http.cookiejar import DefaultCookiePolicy
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import rasterio
import requests
from rasterio.errors import RasterioError
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from h2crop_data.catalog.answers import begun_by
from h2crop_data.catalog.file_access import (
    ASK_AGAIN,
    READING_ERRORS,
    FileAccess,
    access_to,
    asked_of_bucket,
    object_store,
)
from h2crop_data.errors import SceneError
from h2crop_data.redaction import redacted_errors
from h2crop_data.settings import Archives

#: Seconds to wait for an answer, or `H2CROP_READ_TIMEOUT` if that is less.
ANSWER_SECONDS = 10.0
#: The first byte of a file, as it is stored.
FIRST_BYTE = {"Range": "bytes=0-0", "Accept-Encoding": "identity"}
TOTAL = re.compile(r"bytes \d+-\d+/(\d+)")
#: Bytes of an answer that are read to their end.
SHORT_ANSWER = 4096
#: Connections to a server that are kept open.
CONNECTIONS_KEPT = 32
#: An ETag that no file has.
ETAG_OF_NO_FILE = '"h2crop-no-version"'
PRECONDITION_FAILED = 412
WEB_SCHEMES = ("http", "https")
#: What separates headers for GDAL.
LINE_END = "\r\n"


@dataclass(frozen=True)
class FileVersion:
    """What tells a file from the one that takes its place."""

    #: Bytes; None where it is not known.
    size: int | None
    #: As the server writes them; of a file on this machine, its time of change.
    etag: str
    changed: str
    #: Whether reads that ask for this version alone are refused when there is another one.
    can_be_asked_for: bool = field(default=False, compare=False)

    def in_words(self) -> str:
        """It in a sentence."""
        told = [f"{self.size} bytes"] if self.size is not None else []
        told += [f"ETag {self.etag}"] if self.etag else []
        told += [f"changed {self.changed}"] if self.changed else []
        return ", ".join(told)


class FileVersions:
    """The versions of the files of a build, in whichever thread they are opened."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[str, FileVersion] = {}
        #: Server -> whether it heeds `If-Match`; the lock of each is held while it is asked.
        self._heeds: dict[str, bool] = {}
        self._asking: dict[str, threading.Lock] = {}
        #: Files of which GDAL remembers no other version than the known one.
        self._opened: set[str] = set()

    def forget(self) -> None:
        """Take files as they are from now on: another build begins."""
        with self._lock:
            self._known.clear()
            self._heeds.clear()
            self._opened.clear()

    def open(self, href: str, access: FileAccess) -> rasterio.DatasetReader:
        """Open a raster with what `access` gave, in the environment of that. Raises RasterioError."""
        if href not in self._opened and "://" in href and urlsplit(href).scheme not in WEB_SCHEMES:
            # Of a file in a bucket GDAL keeps what it read until that is closed, whatever `ASK_AGAIN` says.
            with suppress(RasterioError), rasterio.open(access.opened):
                pass
        dataset = rasterio.open(access.opened)
        with self._lock:
            self._opened.add(href)
        return dataset

    def size(self, href: str) -> int | None:
        """The bytes of a file that was opened; None where they are not known."""
        known = self._known.get(href)
        return None if known is None else known.size

    def access(self, href: str, access: FileAccess) -> FileAccess:
        """How the version of a file is read that was opened first. access: how the file is read now.

        Raises SceneError where another one is there.
        """
        known = self._known.get(href)
        if known is None or not known.can_be_asked_for:
            self.check(href, access)
        known = self._known.get(href)
        options = {**access.options, **({} if href in self._opened else ASK_AGAIN)}
        if known is not None and known.can_be_asked_for:
            condition = f"If-Match: {known.etag}"
            headers = LINE_END.join(filter(None, [options.get("GDAL_HTTP_HEADERS", ""), condition]))
            options["GDAL_HTTP_HEADERS"] = f"{headers}{LINE_END}"
        return replace(access, options=options)

    def check(self, href: str, access: FileAccess) -> None:
        """Raise SceneError where a file is another than the one that was opened first."""
        now = self._asked(href, access)
        if now is None:
            return
        with self._lock:
            first = self._known.setdefault(href, now)
            if first == now and now.can_be_asked_for:
                self._known[href] = now
        if now != first:
            raise SceneError(
                f"{href} was replaced while it was read: it was {first.in_words()}, now it is {now.in_words()}; "
                "rerun the build to use the new file, or leave the scene out with `sentinel2.gaps: record`"
            )

    def _asked(self, href: str, access: FileAccess) -> FileVersion | None:
        """The current version of a file; None where the server does not state it. Reading the file reports what is
        wrong."""
        if "://" not in href:
            try:
                found = Path(href).stat()
            except OSError:
                return None
            return FileVersion(found.st_size, "", f"{found.st_mtime_ns} ns")
        with access.connection():
            try:
                if access.s3 is not None and access.keys is not None:
                    return self._asked_of_bucket(href, access)
                return self._asked_of_server(href, access)
            except (requests.RequestException, OSError):
                return None

    def _asked_of_bucket(self, href: str, access: FileAccess) -> FileVersion:
        """The same of a bucket. Raises OSError."""
        version = object_version(href, access)
        if not version.etag.startswith('"'):
            return version
        bucket = f"{access.s3} {urlsplit(href).netloc}"
        return replace(version, can_be_asked_for=self._is_heeded(bucket, lambda: object_is_refused(href, access)))

    def _asked_of_server(self, href: str, access: FileAccess) -> FileVersion | None:
        """The same of a web server. Raises RequestException."""
        host = urlsplit(href)
        if host.scheme not in WEB_SCHEMES:
            return None
        answer = first_byte(access, {})
        if not answer.ok:
            return None
        total = TOTAL.fullmatch(answer.headers.get("Content-Range", ""))
        size = total[1] if total else answer.headers.get("Content-Length", "") if answer.status_code == 200 else ""
        version = FileVersion(
            int(size) if size.isdecimal() else None,
            answer.headers.get("ETag", ""),
            answer.headers.get("Last-Modified", ""),
        )
        if version == FileVersion(None, "", ""):
            return None
        # A weak ETag is never the same by `If-Match`.
        if not version.etag.startswith('"'):
            return version

        def is_refused() -> bool | None:
            try:
                answer = first_byte(access, {"If-Match": ETAG_OF_NO_FILE})
            except (requests.RequestException, OSError):
                return None
            return True if answer.status_code == PRECONDITION_FAILED else False if answer.ok else None

        return replace(version, can_be_asked_for=self._is_heeded(host.netloc, is_refused))

    def _is_heeded(self, server: str, is_refused: Callable[[], bool | None]) -> bool:
        """Whether a server heeds `If-Match`, which is asked once.

        is_refused: asks for the version that no file has; None where the answer does not tell, then the next file asks.
        """
        with self._lock:
            asking = self._asking.setdefault(server, threading.Lock())
        with asking:
            if server not in self._heeds:
                refused = is_refused()
                if refused is None:
                    return False
                self._heeds[server] = refused
            return self._heeds[server]


def answer_seconds() -> float:
    """Seconds to wait for an answer."""
    return min(ANSWER_SECONDS, Archives.read().timeout)


def first_byte(access: FileAccess, headers: dict[str, str]) -> requests.Response:
    """A server's answer to the wish for the first byte of a file, without what it sends. Raises RequestException, and
    LateAnswerError where it does not come in time.
    """
    wanted = {**access.headers, **FIRST_BYTE, **headers}
    seconds = answer_seconds()

    def ask() -> requests.Response:
        settings: Any = {"auth": access.auth, "timeout": seconds, "stream": True}
        with SESSION.get(access.address, headers=wanted, **settings) as answer:
            length = answer.headers.get("Content-Length", "")
            if length.isdecimal() and int(length) <= SHORT_ANSWER:
                # What was read to its end leaves its connection for the next one.
                _ = answer.content
            return answer

    return begun_by(time.monotonic() + seconds, ask)


def session_for_versions() -> requests.Session:
    """A session that keeps its connections open for all threads, and no cookies.

    Its server may end a connection that is not used: then what was asked is asked once more.
    """
    session = requests.Session()
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(pool_maxsize=CONNECTIONS_KEPT, max_retries=Retry(1)))
    return session


def object_version(href: str, access: FileAccess) -> FileVersion:
    """The version of a file in a bucket. Raises OSError."""
    from obstore.exceptions import BaseError

    assert access.s3 is not None, "it lies in a bucket"
    assert access.keys is not None, "its bucket is read with keys"
    try:
        store, key = object_store(href, access.s3, access.keys, answer_seconds())
        found = asked_of_bucket(href, lambda: store.head(key))
    except (BaseError, FileNotFoundError) as error:
        raise OSError(str(error)) from None
    return FileVersion(found["size"], found["e_tag"] or "", f"{found['last_modified']:%Y-%m-%dT%H:%M:%SZ}")


def object_is_refused(href: str, access: FileAccess) -> bool | None:
    """Whether a bucket refuses a file whose version is not the requested one; None where unknown."""
    import obstore
    from obstore.exceptions import BaseError, PreconditionError

    assert access.s3 is not None, "it lies in a bucket"
    assert access.keys is not None, "its bucket is read with keys"
    try:
        store, key = object_store(href, access.s3, access.keys, answer_seconds())
        asked_of_bucket(href, lambda: obstore.get(store, key, options={"if_match": ETAG_OF_NO_FILE, "range": (0, 1)}))
    except PreconditionError:
        return True
    except (BaseError, FileNotFoundError):
        return None
    return False


#: What all threads ask web servers with.
SESSION = session_for_versions()
#: Those of the build that runs in this process.
VERSIONS = FileVersions()


@contextmanager
def opened_version(href: str, options: Mapping[str, Any]) -> Iterator[tuple[rasterio.DatasetReader, FileAccess]]:
    """A raster of the version that was opened first in this build, and what that version is read with.

    options: of GDAL. Raises SceneError where another one is there.
    """
    access = VERSIONS.access(href, access_to(href))
    with redacted_errors(*READING_ERRORS), access.environment(options):
        try:
            with VERSIONS.open(href, access) as dataset:
                yield dataset, access
        except READING_ERRORS:
            # A version that is there no more cannot be read.
            VERSIONS.check(href, access)
            raise
