"""Files of archives on this machine: downloaded once, whole, checked, and shared by every build.

A folder holds them by their content, so that a file that changes in an archive does not change under a build. Several
processes may share it: one downloads a file while the others wait for it.

    files/<sha256>/<name>               the files
    known/<sha256 of URL>.json          which file an address gave
    parts/<sha256 of URL>.part          the part of a file downloaded so far; a download is continued from there
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

import requests
from requests.exceptions import RequestException
from urllib3.exceptions import HTTPError

from h2crop_data.catalog.accounts import COOKIE, PASSWORD, USER, Account
from h2crop_data.catalog.drafts import draft_of
from h2crop_data.catalog.whole_files import (
    BEGINNING,
    TIFF_NAME,
    XML_NAME,
    RefusedFileError,
    check_whole,
    refuse_beginning,
)
from h2crop_data.errors import ReadError
from h2crop_data.redaction import without_secrets
from h2crop_data.settings import Archives
from h2crop_data.waits import REPORTED_AFTER, report_retry, waited_for

log = logging.getLogger(__name__)
#: Bytes that are written at a time.
WRITTEN_BYTES = 2**20
#: Answers that are worth another try.
BUSY = (408, 425, 429, 500, 502, 503, 504)
#: Seconds between two looks whether another process has a file downloaded.
LOOK_EVERY_FILE = 0.1
#: What `downloaded` is called with: bytes that have come of a file, and its length where that is known.
Downloaded = Callable[[int, int | None], None]


class BrokenDownloadError(Exception):
    """A download stopped for a reason that a retry may fix."""


@dataclass(frozen=True)
class Stated:
    """What a server says of a file."""

    length: int | None
    etag: str | None
    modified: str | None

    @classmethod
    def of(cls, answer: requests.Response, length: int | None) -> Stated:
        """What an answer says."""
        return cls(length, answer.headers.get("ETag"), answer.headers.get("Last-Modified"))

    @property
    def validator(self) -> str | None:
        """What a server compares before it sends the rest of a file; weak ETags may not be used."""
        return self.etag if self.etag and not self.etag.startswith("W/") else self.modified

    def is_other(self, later: Stated) -> bool:
        """Whether a later answer is about another file."""
        pairs = ((self.length, later.length), (self.etag, later.etag), (self.modified, later.modified))
        return any(None not in pair and pair[0] != pair[1] for pair in pairs)


@dataclass(frozen=True)
class CachedFile:
    """A file in a cache."""

    path: Path
    #: Bytes that it has more now than what was there of it; 0 where all was.
    downloaded: int


class FileCache:
    """A folder of downloaded files."""

    def __init__(
        self,
        folder: Path,
        account: Account | None = None,
        pauses: Sequence[float] | None = None,
        *,
        reported_after: float = REPORTED_AFTER,
    ) -> None:
        """account, pauses (in seconds, before further tries): by default those of the environment.

        reported_after: seconds until a wait for another process is reported.
        """
        self.folder = folder.resolve()
        self.account = account or Account.from_environment()
        self.session = account_session(self.account)
        self.pauses = Archives.read().pauses if pauses is None else pauses
        self.reported_after = reported_after

    def fetch(self, url: str, downloaded: Downloaded = lambda done, total: None) -> CachedFile:
        """The file of an address, downloaded where it is not there. Raises ReadError that names the address."""
        try:
            if not url.startswith(("http://", "https://")):
                raise ReadError("expected an address that begins with http:// or https://")
            known = self.known(url)
            if known is not None:
                log.debug("%s is in the cache: %s", without_secrets(url), known)
                return CachedFile(known, 0)
            with self.locked(url) as part:
                # Another process may have got it meanwhile.
                known = self.known(url)
                if known is not None:
                    return CachedFile(known, 0)
                try:
                    return self.download(url, part, downloaded)
                except RefusedFileError:
                    discard(part)
                    raise
        except ReadError as error:
            raise ReadError(f"cannot download {url}: {error}") from error
        except OSError as error:
            raise ReadError(f"cannot save {url} in {self.folder}: {error.strerror or error}") from error

    def known(self, url: str) -> Path | None:
        """The path of the file of an address; None where it is not downloaded completely."""
        try:
            record = json.loads(self.record(url).read_text(encoding="utf-8"))
            path = self.folder / "files" / record["sha256"] / record["name"]
            return path if path.stat().st_size == record["length"] else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def record(self, url: str) -> Path:
        """The file that says what an address gave."""
        return self.folder / "known" / f"{address_key(url)}.json"

    @contextmanager
    def locked(self, url: str) -> Iterator[Path]:
        """Where the part of a file lies that has come so far; no other process is at it."""
        part = self.folder / "parts" / f"{address_key(url)}.part"
        part.parent.mkdir(parents=True, exist_ok=True)
        with part.with_suffix(".lock").open("w") as lock:
            waited_for(
                log,
                url,
                "another process downloads it",
                partial(can_lock, lock),
                LOOK_EVERY_FILE,
                reported_after=self.reported_after,
            )
            yield part

    def download(self, url: str, part: Path, downloaded: Downloaded) -> CachedFile:
        """Download a file, check it and keep it."""
        before, begun = part.stat().st_size if part.exists() else 0, time.monotonic()
        stated = self.complete(url, part, downloaded)
        name, size = name_in_address(url), part.stat().st_size
        check_whole(part, name)
        with part.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            os.fsync(file.fileno())
        path = self.folder / "files" / sha256 / name
        path.parent.mkdir(parents=True, exist_ok=True)
        part.replace(path)
        discard(part)
        record = {"url": url, "name": name, "sha256": sha256, **asdict(stated), "length": size}
        write_json(self.record(url), record)
        spent = time.monotonic() - begun
        more = {"bytes": size - before, "seconds": round(spent, 3)}
        log.info("downloaded %s: %.1f MB in %.1f s", without_secrets(url), (size - before) / 1e6, spent, extra=more)
        return CachedFile(path, max(0, size - before))

    def complete(self, url: str, part: Path, downloaded: Downloaded) -> Stated:
        """Download what is missing of a file, in as many tries as bring it forward."""
        tries, furthest = 0, part.stat().st_size if part.exists() else 0
        while True:
            try:
                return self.attempt(url, part, downloaded)
            except (BrokenDownloadError, RequestException) as error:
                size = part.stat().st_size if part.exists() else 0
                tries, furthest = (0, size) if size > furthest else (tries + 1, furthest)
                if tries > len(self.pauses):
                    raise ReadError(f"{why_broken(error)}; rerun to continue the download") from error
                if self.pauses:
                    pause = self.pauses[max(0, tries - 1)]
                    report_retry(log, f"downloading {url}", why_broken(error), pause, max(1, tries))
                    time.sleep(pause)

    def attempt(self, url: str, part: Path, downloaded: Downloaded) -> Stated:
        """Download what is missing of a file in one request.

        Raises BrokenDownloadError or RequestException where another try may help, else ReadError.
        """
        earlier = earlier_answer(part)
        have = part.stat().st_size if earlier else 0
        headers = {"Range": f"bytes={have}-", "If-Range": earlier.validator or ""} if earlier else {}
        auth = self.account.auth(url)
        with self.session.get(url, headers=headers, auth=auth, stream=True, timeout=Archives.read().timeout) as answer:
            if answer.status_code == 416 and earlier:
                if have == earlier.length == length_in_range(answer):
                    return earlier
                discard(part)
                raise BrokenDownloadError("the server refused to go on (HTTP 416)")
            refuse_status(answer)
            if answer.status_code == 206 and earlier:
                stated = Stated.of(answer, length_in_range(answer))
                if begin_of_range(answer) != have or earlier.is_other(stated):
                    discard(part)
                    raise BrokenDownloadError("the file changed while it was downloaded")
            else:
                have, stated = 0, Stated.of(answer, length_of_body(answer))
                refuse_type(answer, url)
                discard(part)
                write_json(part.with_suffix(".json"), asdict(stated))
            receive(answer, name_in_address(url), part, have, stated, downloaded)
        return stated


def can_lock(file: IO[str]) -> bool:
    """Lock a file, where no other process has locked it; gives whether it did."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def account_session(account: Account) -> requests.Session:
    """A session that sends an account to its host."""
    session = requests.Session()
    # Lengths and ranges are of the file, not of a packed copy of it.
    session.headers["Accept-Encoding"] = "identity"
    for name, value in account.cookies().items():
        session.cookies.set(name, value, domain=account.host, path="/")
    return session


def receive(
    answer: requests.Response, name: str, part: Path, have: int, stated: Stated, downloaded: Downloaded
) -> None:
    """Append the body of an answer to a part of `have` bytes of a file. Raises BrokenDownloadError, ReadError."""
    unseen = have == 0
    with part.open("ab+") as file:
        for piece in pieces_as_they_come(answer):
            file.write(piece)
            have += len(piece)
            if unseen and have >= BEGINNING:
                # The end would tell too, some hundred megabytes later.
                unseen = False
                file.seek(0)
                refuse_beginning(file.read(BEGINNING), name)
            downloaded(have, stated.length)
    if stated.length is not None and have != stated.length:
        if have > stated.length:
            discard(part)
        raise BrokenDownloadError(f"received {have} of {stated.length} bytes")


def pieces_as_they_come(answer: requests.Response) -> Iterator[bytes]:
    """The body of an answer as it comes: when a connection breaks, what has come before is not lost."""
    try:
        while piece := answer.raw.read1(WRITTEN_BYTES):
            yield piece
    except HTTPError as error:
        raise BrokenDownloadError(f"the connection failed ({type(error).__name__})") from error


def name_in_address(url: str) -> str:
    """The name of the file at an address."""
    return Path(urlsplit(url).path).name or "file"


def address_key(url: str) -> str:
    """What stands for an address in names of files."""
    return hashlib.sha256(url.encode()).hexdigest()


def earlier_answer(part: Path) -> Stated | None:
    """What the answer said that a part comes from; None where there is no part that can be continued."""
    try:
        stated = Stated(**json.loads(part.with_suffix(".json").read_text(encoding="utf-8")))
        return stated if part.stat().st_size and stated.validator else None
    except (OSError, ValueError, TypeError):
        return None


def discard(part: Path) -> None:
    """Delete the part of a file downloaded so far."""
    part.unlink(missing_ok=True)
    part.with_suffix(".json").unlink(missing_ok=True)


def refuse_status(answer: requests.Response) -> None:
    """Refuse an answer that is not the file. Raises ReadError, BrokenDownloadError where another try may help."""
    status = answer.status_code
    if status in (200, 206):
        return
    if status in BUSY:
        raise BrokenDownloadError(f"the server is busy (HTTP {status})")
    if status in (401, 403):
        raise ReadError(
            f"the server does not accept the account (HTTP {status}): write a valid one into ~/.netrc, or set "
            f"{USER} and {PASSWORD}, or {COOKIE}"
        )
    raise ReadError(f"HTTP {status}")


def refuse_type(answer: requests.Response, url: str) -> None:
    """Refuse a web page under the name of an image or of metadata. Raises RefusedFileError."""
    name = urlsplit(url).path
    kind = answer.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind in ("text/html", "application/xhtml+xml") and (TIFF_NAME.search(name) or XML_NAME.search(name)):
        raise RefusedFileError(
            f"received a web page instead of the file, possibly a login page: check the account ({USER}, {COOKIE})"
        )


def length_of_body(answer: requests.Response) -> int | None:
    """The length of a body, where an answer states it."""
    stated = answer.headers.get("Content-Length", "")
    return int(stated) if stated.isdecimal() else None


def length_in_range(answer: requests.Response) -> int | None:
    """The length of the file that a part is of, where an answer states it."""
    match = re.fullmatch(r"bytes (?:\*|\d+-\d+)/(\d+)", answer.headers.get("Content-Range", "").strip())
    return int(match[1]) if match else None


def begin_of_range(answer: requests.Response) -> int | None:
    """The first byte of a part, where an answer states it."""
    match = re.match(r"bytes (\d+)-", answer.headers.get("Content-Range", "").strip())
    return int(match[1]) if match else None


def why_broken(error: Exception) -> str:
    """Why a download stopped; of errors of the connection only their kind, as their texts are pages long."""
    return str(error) if isinstance(error, BrokenDownloadError) else f"the connection failed ({type(error).__name__})"


def write_json(path: Path, document: dict[str, Any]) -> None:
    """Write a file whole, or leave what is there."""
    with draft_of(path) as draft:
        draft.write_text(json.dumps(document), encoding="utf-8")
