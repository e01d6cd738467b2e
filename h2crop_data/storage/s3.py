"""A store in an S3 bucket: a file is an object, written by one PUT, so that it is there whole or not at all.

A builder keeps others out through a lease (lease.py), and its successor is kept from it by conditions:

**A builder that lost its lock does not write over a file its successor has written.** `replace` (1) asks for the ETag
of the file, (2) checks that no other builder took over until now, (3) writes under the condition that the file still
has that ETag. A successor writes after it took over, so after (2), so after (1): the file then has another ETag and the
server refuses (3), however long this process or its request was held up in between. After (3) it checks again. A
builder that lost its lock between (2) and (3) ends there, even where its successor has not come to that file; when the
successor does, it replaces what it finds. Equal bytes have equal ETags: writing a file as it was counts as not writing
it.

**`write_permanent` never writes over a shard that another process wrote meanwhile.** A shard is created under the
condition that there is none. One with the same bytes stays. One with other bytes is of a block that is not finished or
that is damaged; it is replaced under the condition that it still has the ETag that was found, after another look at the
lock. So a late shard of a builder that lost its lock is refused wherever its successor has written.

**`write` has no condition.** It is for files whose content does not depend on the writer: the sums and markers of a
block. Worker processes, which have no lease, write nothing but these and shards. They look at the lock right before
each write, and write nothing more once the builder that sent them gave it up, lost it or died.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import obstore
from obstore.exceptions import GenericError
from obstore.store import S3Store
from zarr.abc.store import ByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import ObjectStore

from h2crop_data.errors import MissingFileError, StoreError
from h2crop_data.storage.lease import Lease, StoreLock, WatchedLease
from h2crop_data.storage.requests import (
    ConflictError,
    Patience,
    RequestError,
    Tries,
    connect,
    patiently,
    put_if,
    refuse_after_fork,
    request_error,
    server_of_environment,
)
from h2crop_data.storage.storage import BUILD_FOLDER, LOCK, WITHOUT_BUILD_FOLDER, FileRecord, Holder, Storage

if TYPE_CHECKING:
    from obstore import ObjectMeta

Answer = TypeVar("Answer")
#: Objects of one answer to a list request; S3 gives no more.
PAGE = 1000
#: Bytes read at a time to hash an object.
STREAM_BYTES = 8 * 1024**2
#: Of so many written files the digest is kept until somebody asks.
DIGESTS_KEPT = 1024


def split_location(location: str) -> tuple[str, str]:
    """Bucket and prefix of `s3://bucket/prefix`. Raises StoreError for other forms."""
    bucket, _, prefix = location.removeprefix("s3://").partition("/")
    folders = prefix.strip("/").split("/") if prefix.strip("/") else []
    if not location.startswith("s3://") or not bucket or {"", ".", ".."} & set(folders):
        raise StoreError(f"invalid location of a store {location}; expected s3://bucket/prefix")
    return bucket, "/".join(folders)


class ObjectStorage(Storage):
    """A store below a prefix of an S3 bucket."""

    def __init__(self, location: str, patience: Patience | None = None, hold_id: str = "") -> None:
        """Nothing is asked of the server yet. Raises StoreError for a URL or settings that make no sense.

        hold_id: of the lock that files are written under; empty where they are written for none.
        """
        self.location = location
        self.patience = patience or Patience()
        self.bucket, prefix = split_location(location)
        self.prefix = f"{prefix}/" if prefix else ""
        self.server = server_of_environment()
        self.store = connect(self.bucket, self.server, self.patience)
        self.lease: Lease | None = None
        self.hold_id = hold_id
        #: The hold that files are written for, where another process has it.
        self.watched_lease: WatchedLease | None = None
        self.digests: dict[str, FileRecord] = {}
        self.keeping_digests = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled without the lease: another process cannot lock the store, but can see whether it is locked."""
        return ObjectStorage, (self.location, self.patience, self.hold_id)

    def key(self, name: str) -> str:
        """The key of a file in its bucket."""
        return self.prefix + name

    def ask(self, verb: str, name: str, request: Callable[[], Answer]) -> Answer:
        """The answer to a request that may be made again. Raises StoreError when no more will do."""
        refuse_after_fork(self.location)
        try:
            return patiently(request, self.patience.retry, f"{verb} {self.where(name)}")
        except (ConflictError, *RequestError) as error:
            if isinstance(error, StoreError):
                raise
            raise request_error(verb, self.where(name), error) from error

    def read(self, name: str) -> bytes:
        return self.ask("read", name, lambda: obstore.get(self.store, self.key(name)).bytes().to_bytes())

    def read_range(self, name: str, offset: int, length: int) -> bytes:
        def request() -> bytes:
            try:
                if length > 0:
                    return obstore.get_range(self.store, self.key(name), start=offset, length=length).to_bytes()
            except GenericError:
                if offset < obstore.head(self.store, self.key(name))["size"]:
                    raise
            # Of nothing, or past the end, S3 gives an error where a file gives no bytes.
            obstore.head(self.store, self.key(name))
            return b""

        return self.ask("read", name, request)

    def size(self, name: str) -> int | None:
        found = self.look(name)
        return None if found is None else found["size"]

    def look(self, name: str) -> ObjectMeta | None:
        """Size and ETag of a file, None where there is none. Raises StoreError."""
        try:
            return self.ask("read", name, lambda: obstore.head(self.store, self.key(name)))
        except MissingFileError:
            return None

    def names(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        start = self.key(prefix)
        last = ""
        for page in self.pages(start):
            for found in page:
                if found["path"] <= last:
                    raise StoreError(
                        f"cannot list {self.where(prefix)}: its server lists names out of order, as directory "
                        "buckets (S3 Express) do; use a general purpose bucket"
                    )
                last = found["path"]
                # The empty object that some tools make to show a folder has the name of the folder itself.
                if last.startswith(start):
                    yield last.removeprefix(self.prefix), found["size"]

    def pages(self, start: str) -> Iterator[Sequence[ObjectMeta]]:
        """The objects whose keys begin so, in order, as one request after the other gives them."""
        last: str | None = None

        def next_page() -> Sequence[ObjectMeta]:
            return next(iter(obstore.list(self.store, start or None, offset=last, chunk_size=PAGE)), [])

        while True:
            page = self.ask("list", start.removeprefix(self.prefix), next_page)
            yield page
            if len(page) < PAGE:
                return
            last = page[-1]["path"]

    def write(self, name: str, parts: Iterable[bytes]) -> None:
        data = self.joined(name, parts)

        def request() -> None:
            self.check_lease()
            obstore.put(self.store, self.key(name), data, use_multipart=False)

        self.ask("write", name, request)
        self.keep_digest(name, data)

    def write_permanent(self, name: str, parts: Iterable[bytes]) -> None:
        data = self.joined(name, parts)

        def attempt() -> None:
            self.check_lease()
            try:
                put_if(self.store, self.key(name), data, None)
            except ConflictError:
                found = self.look(name)
                if found is None:
                    raise
                if self.has_bytes(name, found, data):
                    return
                self.check_lease()
                put_if(self.store, self.key(name), data, found["e_tag"])

        self.ask("write", name, attempt)
        self.keep_digest(name, data)

    def has_bytes(self, name: str, found: ObjectMeta, data: bytes) -> bool:
        """Whether an object that was found is what would be written."""
        if found["size"] != len(data):
            return False
        return obstore.get(self.store, self.key(name)).bytes().to_bytes() == data

    def replace(self, name: str, parts: Iterable[bytes]) -> None:
        lease = self.lease
        if lease is None:
            raise StoreError(f"cannot replace {self.where(name)}: this process does not have the lock of the store")
        data = self.joined(name, parts)

        def attempt() -> None:
            # The order is what the proof above rests on. It holds for every attempt by itself.
            found = self.look(name)
            lease.check()
            put_if(self.store, self.key(name), data, None if found is None else found["e_tag"])
            lease.check()

        self.ask("write", name, attempt)
        self.keep_digest(name, data)

    def joined(self, name: str, parts: Iterable[bytes]) -> bytes:
        """The bytes of a file, whole before the first is sent. Raises StoreError where they cannot be got."""
        try:
            return b"".join(parts)
        except OSError as error:
            raise StoreError(
                f"cannot write {self.where(name)}: {error.strerror or error}; finished blocks are kept, fix it and "
                "rerun"
            ) from error

    def delete(self, name: str) -> None:
        def request() -> None:
            self.check_lease()
            obstore.delete(self.store, self.key(name))

        self.forget_digest(name)
        self.ask("delete", name, request)

    def describe(self, name: str) -> FileRecord:
        """What this object wrote is described from memory: the server compared the sha256 sent with it."""
        record = self.forget_digest(name)
        if record is not None:
            return record

        def request() -> FileRecord:
            digest, size = hashlib.sha256(), 0
            for piece in obstore.get(self.store, self.key(name)).stream(min_chunk_size=STREAM_BYTES):
                digest.update(piece)
                size += len(piece)
            return {"path": name, "bytes": size, "sha256": digest.hexdigest()}

        return self.ask("read", name, request)

    def keep_digest(self, name: str, data: bytes) -> None:
        """Remember what a file holds until somebody asks, of the newest files only."""
        record = FileRecord(path=name, bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
        with self.keeping_digests:
            self.digests[name] = record
            if len(self.digests) > DIGESTS_KEPT:
                del self.digests[next(iter(self.digests))]

    def forget_digest(self, name: str) -> FileRecord | None:
        """What was remembered of a file, only this once."""
        with self.keeping_digests:
            return self.digests.pop(name, None)

    def share(self, name: str, source: Storage) -> None:
        """A copy made by the server within a bucket; from elsewhere the bytes come through this machine."""
        if not isinstance(source, ObjectStorage) or (source.server, source.bucket) != (self.server, self.bucket):
            self.write(name, [source.read(name)])
            return
        original = source.key(name)

        def request() -> None:
            self.check_lease()
            obstore.copy(self.store, original, self.key(name))

        self.forget_digest(name)
        self.ask(f"copy {source.where(name)} to", name, request)

    def check_lease(self) -> None:
        """Raise StoreError where files are written under a lock, of this object or another process, that is over."""
        if self.lease is not None:
            self.lease.check()
        elif self.hold_id:
            if self.watched_lease is None:
                build = self.key(f"{BUILD_FOLDER}/")
                self.watched_lease = WatchedLease(
                    self.location, self.bucket, self.server, build, self.patience, self.hold_id
                )
            self.watched_lease.check()

    @contextmanager
    def hold(self) -> Iterator[None]:
        """The lock is a lease: it ends some time after its builder died."""
        if next(self.names(f"{BUILD_FOLDER}/"), None) is None and next(self.names(), None) is not None:
            raise StoreError(
                f"{self.location} is not empty and has no {BUILD_FOLDER}/ to continue from; {WITHOUT_BUILD_FOLDER}"
            )
        lease = Lease(self.location, self.bucket, self.server, self.key(f"{BUILD_FOLDER}/"), self.patience)
        lease.acquire()
        self.lease, self.hold_id, self.watched_lease = lease, lease.lock.id, None
        try:
            yield
        finally:
            self.lease = None
            lease.release()

    @property
    def hold_name(self) -> str:
        return self.hold_id

    def holder(self) -> Holder | None:
        lock = StoreLock(self.location, self.bucket, self.server, self.key(f"{BUILD_FOLDER}/"), self.patience)

        def request() -> Holder | None:
            found = lock.look()
            if found is None or found.lock.released:
                return None
            said = found.lock
            return Holder(said.host, said.process, said.since, said.id, lock.is_renewed(found))

        return self.ask("read", LOCK, request)


class ReadableObjects(ObjectStore[S3Store]):
    """Zarr's store on obstore: tries again what may pass, with errors that say what to do; none in a forked process.

    A listing is read whole before its first name is given.
    """

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        get = super().get
        return await self._asked("read", key, lambda: get(key, prototype, byte_range))

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        get, wanted = super().get_partial_values, [*key_ranges]
        keys = [*dict.fromkeys(key for key, _ in wanted)]
        named = ", ".join(keys[:1]) + (f" and {len(keys) - 1} more" if len(keys) > 1 else "")
        return await self._asked("read", named, lambda: get(prototype, wanted))

    async def exists(self, key: str) -> bool:
        exists = super().exists
        return await self._asked("read", key, lambda: exists(key))

    async def getsize(self, key: str) -> int:
        size = super().getsize
        return await self._asked("read", key, lambda: size(key))

    async def getsize_prefix(self, prefix: str) -> int:
        size = super().getsize_prefix
        return await self._asked("list", prefix, lambda: size(prefix))

    def list(self) -> AsyncGenerator[str, None]:
        return self._listed("", super().list)

    def list_prefix(self, prefix: str) -> AsyncGenerator[str, None]:
        names = super().list_prefix
        return self._listed(prefix, lambda: names(prefix))

    def list_dir(self, prefix: str) -> AsyncGenerator[str, None]:
        names = super().list_dir
        return self._listed(prefix, lambda: names(prefix))

    async def _listed(self, prefix: str, names: Callable[[], AsyncIterable[str]]) -> AsyncGenerator[str, None]:
        async def whole() -> Sequence[str]:
            return [name async for name in names()]

        for name in await self._asked("list", prefix, whole):
            yield name

    async def _asked(self, verb: str, key: str, request: Callable[[], Awaitable[Answer]]) -> Answer:
        """The answer to a request, made again where that may help. Raises StoreError."""
        location = f"s3://{self.store.config.get('bucket')}/{self.store.prefix or ''}".rstrip("/")
        refuse_after_fork(location)
        where = f"{location}/{key}".rstrip("/")
        tries = Tries(f"{verb} {where}", Patience().retry)
        while True:
            try:
                return await request()
            except RequestError as error:
                pause = tries.pause_after(error) if isinstance(error, GenericError) else None
                if pause is None:
                    remedy = "check the server and the connection to it, then try again"
                    raise request_error(verb, where, error, remedy) from error
            await asyncio.sleep(pause)


def s3_zarr_store(location: str) -> ReadableObjects:
    """The Zarr store at `s3://bucket/prefix`, to be read only. Raises StoreError for other forms."""
    bucket, prefix = split_location(location)
    return ReadableObjects(connect(bucket, server_of_environment(), Patience(), prefix=prefix or None), read_only=True)
