"""A store on a web server, to be read only.

Parts of a file are asked for as ranges of bytes. A server that does not know ranges answers with the whole file (status
200 instead of 206): the part is then cut from that, the file is kept for its other parts, and the user is warned.
"""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from typing import Any

import aiohttp
import fsspec
from fsspec.asyn import sync
from fsspec.implementations.http import HTTPFileSystem
from zarr.abc.store import ByteRequest, RangeByteRequest, SuffixByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import FsspecStore

from h2crop_data.errors import MissingFileError, StoreError, StoreWarning
from h2crop_data.storage.storage import ReadableStorage

#: So many bytes of files that came whole are kept at most, but always the newest file.
KEPT_BYTES = 256 * 1024**2
#: How a server says which part it gives, and the status for a file that ends before the part.
CONTENT_RANGE, PART, NO_SUCH_PART = re.compile(r"bytes \d+-(\d+)/"), 206, 416


class WholeFiles(dict[str, bytes]):
    """Files, by URL, that came whole where a part was asked for: the newest ones."""

    def keep(self, url: str, data: bytes) -> None:
        """Keep a file, and drop the oldest ones where there are too many bytes."""
        self.pop(url, None)
        self[url] = data
        size = sum(map(len, self.values()))
        while size > KEPT_BYTES and len(self) > 1:
            size -= len(self.pop(next(iter(self))))


@dataclass(frozen=True)
class Answer:
    """The part of a file that a server sent."""

    data: bytes
    #: Bytes of the file up to the end of `data`.
    end: int
    #: Whether it is all of the file.
    whole: bool


async def ask(files: HTTPFileSystem, url: str, wanted: str | None = None) -> Answer:
    """A file, or a range of its bytes, `0-99` or `-100` for the last. Raises MissingFileError or StoreError."""
    options = dict(files.kwargs)
    if wanted:
        # A range counts the bytes of what is sent, so that must not be compressed.
        options["headers"] = {**options.get("headers", {}), "Range": f"bytes={wanted}", "Accept-Encoding": "identity"}
    try:
        session: aiohttp.ClientSession = await files.set_session()
        async with session.get(files.encode_url(url), **options) as response:
            if response.status == 404:
                raise MissingFileError(f"cannot read {url}: the file does not exist")
            if wanted and response.status == NO_SUCH_PART:
                return Answer(b"", 0, whole=False)
            response.raise_for_status()
            data = await response.read()
            if response.status != PART:
                return Answer(data, len(data), whole=True)
            part = CONTENT_RANGE.match(response.headers.get("Content-Range", ""))
            if part is None:
                raise StoreError(f"cannot read {url}: its server sends a part without its range (Content-Range)")
            return Answer(data, int(part[1]) + 1, whole=False)
    except (TimeoutError, aiohttp.ClientError, ConnectionError) as error:
        raise StoreError(f"cannot read {url}: {str(error) or 'no answer in time'}") from error


async def ask_part(
    files: HTTPFileSystem, kept: WholeFiles, url: str, start: int, stop: int | None = None
) -> tuple[bytes, int]:
    """`file[start:stop]` of a file, start from its end where it is negative, and the bytes up to there in the file.

    Raises MissingFileError or StoreError, warns of a server without ranges.
    """
    if url not in kept:
        wanted = str(start) if start < 0 else f"{start}-" if stop is None else f"{start}-{stop - 1}"
        answer = await ask(files, url, wanted)
        if not answer.whole:
            return answer.data, answer.end
        kept.keep(url, answer.data)
        warn_of_whole_files(url)
    data = kept[url]
    return data[start:stop], len(data) if stop is None else min(stop, len(data))


def warn_of_whole_files(url: str) -> None:
    """Warn why reading from this server is slow; Python shows the same text once."""
    server = "/".join(url.split("/")[:3])
    warnings.warn(
        f"{server} ignores byte ranges: whole files are read for every part of them, which is slow; serve the store "
        "with nginx, Apache or Caddy, or copy it to this machine",
        StoreWarning,
        stacklevel=2,
    )


class WebStorage(ReadableStorage):
    """The files of a store below an http(s) URL. Cheap to pickle; usable after a fork, and from several threads."""

    def __init__(self, location: str) -> None:
        self.location = location
        self.kept = WholeFiles()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled without the files that are kept."""
        return WebStorage, (self.location,)

    @property
    def files(self) -> HTTPFileSystem:
        """The connections of this process and thread; fsspec keeps them."""
        return fsspec.url_to_fs(self.location)[0]

    def read(self, name: str) -> bytes:
        files = self.files
        answer: Answer = sync(files.loop, ask, files, self.where(name))
        return answer.data

    def read_range(self, name: str, offset: int, length: int) -> bytes:
        # A range holds at least one byte.
        data, _ = self.ask_part(name, offset, offset + max(length, 1))
        return data[:length]

    def read_end(self, name: str, length: int) -> tuple[bytes, int] | None:
        try:
            return self.ask_part(name, -length)
        except MissingFileError:
            return None

    def ask_part(self, name: str, start: int, stop: int | None = None) -> tuple[bytes, int]:
        """A part of a file and where it ends. Raises MissingFileError or StoreError."""
        files = self.files
        part: tuple[bytes, int] = sync(files.loop, ask_part, files, self.kept, self.where(name), start, stop)
        return part


class ReadableWeb(FsspecStore):
    """Zarr's store on a web server, whose errors say what could not be read, and that can do without ranges."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.kept = WholeFiles()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "kept": WholeFiles()}

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        url = f"{self.path.rstrip('/')}/{key}"
        try:
            if byte_range is None:
                return prototype.buffer.from_bytes((await ask(self.fs, url)).data)
            data, _ = await ask_part(self.fs, self.kept, url, *limits(byte_range))
            return prototype.buffer.from_bytes(data)
        except MissingFileError:
            return None


def limits(wanted: ByteRequest) -> tuple[int, int | None]:
    """Start and stop of a range of Zarr's."""
    if isinstance(wanted, RangeByteRequest):
        return wanted.start, wanted.end
    if isinstance(wanted, SuffixByteRequest):
        return -wanted.suffix, None
    return wanted.offset, None


def web_zarr_store(location: str) -> ReadableWeb:
    """The Zarr store below an http(s) URL, to be read only."""
    files, path = fsspec.url_to_fs(location, asynchronous=True)
    return ReadableWeb(files, read_only=True, path=path)
