"""The lock of a store in an object store: a lease its holder renews, and another builder takes over when it ran out.

The lock is one object, `.build/lock`: who holds the store, for how many seconds from the last renewal on, and a token,
the number of the lock. Every state of it is unlike every other, so its ETag names exactly one.

- Acquired by a PUT under the condition that there is no lock, or that one that was released or ran out is still as it
  was read. The token goes up by one. Of several builders exactly one succeeds.
- Renewed three times in its length, by a PUT under the condition that it is still as its holder left it. The holder
  counts from the moment before the PUT, by a monotonic clock, and relies on nine tenths of the length.
- Run out when it is older than its length by the server's clock: the time between the lock and an object written now.
  Clocks of two machines are never compared. Last-Modified has whole seconds, so two seconds more are waited for.

A builder that was stopped for a while and resumes sees by its clock that it cannot rely on the lease, and renews it at
the server. Either no other builder took over meanwhile, and it continues, or it learns who did, and ends.

Worker processes have no lease. They know the `id` of their builder's hold and look at the lock before each write.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import obstore

from h2crop_data.errors import HeldStoreError, StoreError
from h2crop_data.storage.requests import (
    ConflictError,
    Patience,
    RequestError,
    cause_of,
    connect,
    moment,
    patiently,
    put_if,
    request_error,
)
from h2crop_data.waits import report_retry

log = logging.getLogger(__name__)
#: How often in its length a lease is renewed, and how often after a renewal that failed.
RENEWALS, ATTEMPTS = 3, 30
#: Seconds between two looks at a lock that may have run out.
RENEWAL_LOOKS = 0.5
#: The part of its length for which its holder relies on it.
RELIED_ON = 0.9
#: Seconds by which the ages of two objects may deceive: whole seconds, and servers of several machines.
CLOCK_STEPS = 2.0
#: An ETag the lock never has.
NO_ETAG = f'"{"0" * 32}"'


def iso_now() -> str:
    """The time by the clock of this machine, for people to read."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True)
class Lock:
    """A state of the lock."""

    host: str
    process: int
    #: Of this hold; no other has it.
    id: str
    #: Number of the hold, from 1.
    token: int
    seconds: float
    since: str
    renewed: str
    renewals: int = 0
    released: bool = False

    @property
    def holder(self) -> str:
        """Who holds or held it, for people."""
        return f"{self.host} process {self.process}, since {self.since}"

    def encode(self) -> bytes:
        """The object's bytes: JSON."""
        holder = {"host": self.host, "process": self.process, "id": self.id}
        rest = {name: value for name, value in vars(self).items() if name not in holder}
        return json.dumps({"holder": holder, **rest}).encode()

    @classmethod
    def decode(cls, data: bytes) -> Lock:
        """From the object's bytes. Raises ValueError, KeyError, TypeError or AttributeError for others."""
        values = json.loads(data)
        return cls(**values.pop("holder"), **values)


@dataclass(frozen=True)
class FoundLock:
    """The lock as the server has it."""

    lock: Lock
    etag: str
    #: By the server's clock.
    modified: datetime


class StoreLock:
    """The lock of a store, as the server has it."""

    def __init__(self, location: str, bucket: str, server: str | None, folder: str, patience: Patience) -> None:
        """location: the store as the user calls it. folder: what the keys of its `.build/` begin with."""
        self.location = location
        self.patience = patience
        #: No request may take so long that none can follow it while the lease lasts.
        self.quick = max(2.0, patience.lease / 6)
        quickly = replace(patience, connect=min(patience.connect, self.quick), request=self.quick)
        self.store = connect(bucket, server, quickly)
        self.key, self.clock_key = f"{folder}lock", f"{folder}clock"
        self.changing = threading.Lock()

    def look(self) -> FoundLock | None:
        """The lock, None where there is none. Raises StoreError where it cannot be understood, RequestError."""
        try:
            found = obstore.get(self.store, self.key)
            data, meta = found.bytes().to_bytes(), found.meta
        except FileNotFoundError:
            return None
        try:
            return FoundLock(Lock.decode(data), meta["e_tag"] or "", meta["last_modified"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise StoreError(
                f"the lock of {self.location} ({self.key}) is damaged: {error}; delete it if no builder is at work"
            ) from error

    def is_renewed(self, found: FoundLock) -> bool:
        """Whether the holder of a lock that was found lives, without writing. Raises as `look` does.

        Its age is measured by the clock of this machine; where by that the lease ran out, or the clock is wrong by more
        than its length, the lock is looked at again until it must have been renewed.
        """
        age = (datetime.now(UTC) - found.modified).total_seconds()
        if abs(age) <= found.lock.seconds + CLOCK_STEPS:
            return True
        until = moment() + found.lock.seconds / RENEWALS + CLOCK_STEPS
        log.info(
            "waiting up to %.0f s to see whether the lock of %s is renewed: it is %.0f s old by the clock of this "
            "machine and lasts %g s",
            until - moment(),
            self.location,
            age,
            found.lock.seconds,
        )
        while moment() < until:
            time.sleep(RENEWAL_LOOKS)
            again = self.look()
            if again is None or again.lock.released:
                return False
            if again.etag != found.etag:
                return True
        return False

    def age(self, found: FoundLock) -> float:
        """Seconds since a state of the lock was written, by the server's clock, which has whole seconds."""
        obstore.put(self.store, self.clock_key, b"", use_multipart=False)
        now = obstore.head(self.store, self.clock_key)["last_modified"]
        return (now - found.modified).total_seconds()


class WatchedLease(StoreLock):
    """The lock of a builder, as its worker processes see it: the server is asked before each write."""

    def __init__(
        self, location: str, bucket: str, server: str | None, folder: str, patience: Patience, hold: str
    ) -> None:
        """hold: the id of the lock."""
        super().__init__(location, bucket, server, folder, patience)
        self.hold = hold
        #: The state of the lock at the last look, and when that was, by `moment()`.
        self.seen: FoundLock | None = None
        self.looked = 0.0
        #: The state was not written before this, by `moment()`.
        self.written_after = 0.0

    def check(self) -> None:
        """Return where the builder had the lease when this was called. Raises StoreError else, or RequestError."""
        try:
            patiently(self.try_to_check, self.quick, f"looking at the lock of {self.location}")
        except ConflictError as error:
            raise self.over(str(error)) from error

    def try_to_check(self) -> None:
        """One look. Raises ConflictError where the lease is not renewed in time, which may pass."""
        start = moment()
        found = self.look()
        if found is None:
            raise self.over("its lock was deleted")
        if found.lock.id != self.hold:
            raise self.over(f"another builder ({found.lock.holder}) took over")
        if found.lock.released:
            raise self.over("it gave up its lock")
        with self.changing:
            if self.seen is None or found.etag != self.seen.etag:
                # A new state was written after the last look.
                self.written_after = self.looked
            self.seen, self.looked = found, start
            if moment() - self.written_after > found.lock.seconds:
                self.written_after = moment() - self.age(found)
            if moment() - self.written_after > found.lock.seconds:
                raise ConflictError(
                    f"its builder did not renew its lock for {found.lock.seconds:g} s (dead, or without connection)"
                )

    def over(self, reason: str) -> StoreError:
        """The error of a process that would write under a lock that is over."""
        return StoreError(
            f"nothing is written to {self.location}: the build that this process works for is over ({reason}); "
            "rerun the build if it did not finish"
        )


class Lease(StoreLock):
    """One lock of a store. Used by the threads of one process."""

    def __init__(self, location: str, bucket: str, server: str | None, folder: str, patience: Patience) -> None:
        """As of `StoreLock`."""
        super().__init__(location, bucket, server, folder, patience)
        now = iso_now()
        self.lock = Lock(socket.gethostname(), os.getpid(), uuid.uuid4().hex, 0, patience.lease, now, now)
        self.etag: str | None = None
        #: By `moment()`.
        self.relied_on_until = 0.0
        #: The error of a hold that somebody else has now.
        self.lost: StoreError | None = None
        self.ended = threading.Event()
        self.renewer = threading.Thread(target=self.keep, name="lease", daemon=True)

    def acquire(self) -> None:
        """Get the lease. Raises StoreError where another builder has it, or the server cannot keep builders apart."""
        try:
            what = f"locking {self.location}"
            patiently(self.try_to_acquire, self.patience.retry, what)
            if not patiently(self.are_conditions_heeded, self.patience.retry, what):
                obstore.delete(self.store, self.key)
                raise self.no_conditions()
        except (ConflictError, *RequestError) as error:
            if isinstance(error, StoreError):
                raise
            if "NotImplemented" in str(error):
                raise self.no_conditions() from error
            raise request_error("lock", self.location, error) from error
        self.renewer.start()
        every = self.lock.seconds / RENEWALS
        log.info("locked %s: lock %d, renewed every %g s", self.location, self.lock.token, every)

    def try_to_acquire(self) -> None:
        """One attempt. Raises StoreError where another builder has it, ConflictError where one was faster."""
        found = self.look()
        if found is None:
            self.put(replace(self.lock, token=1), None)
        elif found.lock.id == self.lock.id:
            # Written by an attempt of ours whose answer was lost.
            self.put(replace(found.lock, renewals=found.lock.renewals + 1), found.etag)
        else:
            self.refuse_while_held(found)
            self.put(replace(self.lock, token=found.lock.token + 1), found.etag)

    def refuse_while_held(self, found: FoundLock) -> None:
        """Raise StoreError where a builder has the lease and its time is not over by the server's clock."""
        if found.lock.released:
            return
        left = found.lock.seconds + CLOCK_STEPS - self.age(found)
        if left > 0:
            raise HeldStoreError(
                f"{self.location} is locked by another builder ({found.lock.holder}); wait for it or end it (if it "
                f"is dead already, its lock expires in {left:.0f} s)"
            )

    def are_conditions_heeded(self) -> bool:
        """Whether the server refuses PUTs whose condition is not met. Some write nevertheless, without an error."""
        for etag in (None, NO_ETAG):
            try:
                put_if(self.store, self.key, self.lock.encode(), etag)
            except ConflictError:
                continue
            return False
        return True

    def keep(self) -> None:
        """Renew until the lock is released or lost."""
        failed, pause = 0, self.patience.lease / RENEWALS
        while not self.ended.wait(pause):
            try:
                self.renew()
                failed, pause = 0, self.patience.lease / RENEWALS
                log.debug("renewed the lock of %s (%d)", self.location, self.lock.renewals)
            except StoreError as error:
                log.warning("the lock of %s is lost: %s", self.location, error)
                return
            except (ConflictError, *RequestError) as error:
                # `check` says what is wrong, should it still be so when the time is over.
                failed, pause = failed + 1, self.patience.lease / ATTEMPTS
                report_retry(log, f"renewing the lock of {self.location}", cause_of(error), pause, failed)

    def check(self) -> None:
        """Return where no other builder can have taken over before this call. Raises StoreError else."""
        if self.lost is None and moment() < self.relied_on_until:
            return
        try:
            patiently(self.renew, self.quick, f"renewing the lock of {self.location}")
        except (ConflictError, *RequestError) as error:
            if isinstance(error, StoreError):
                raise
            raise StoreError(
                f"the lock of {self.location} expired and cannot be renewed: {cause_of(error)}; finished blocks are "
                "kept; fix it and rerun"
            ) from error

    def renew(self) -> None:
        """Renew the lock. Raises StoreError where it is lost, ConflictError or RequestError to try again."""
        with self.changing:
            if self.lost is not None:
                raise self.lost
            self.change(replace(self.lock, renewals=self.lock.renewals + 1, renewed=iso_now()))

    def release(self) -> None:
        """Release the lock. Where the server does not answer, it expires."""

        def attempt() -> None:
            with self.changing:
                self.change(replace(self.lock, released=True))

        self.ended.set()
        self.renewer.join()
        # That of a lost hold meets a lock that is not as it was left, and changes nothing.
        with suppress(StoreError, ConflictError, *RequestError):
            patiently(attempt, self.quick, f"releasing {self.location}")

    def change(self, lock: Lock) -> None:
        """Give the lock another state. Raises StoreError where it is no longer ours, else as `put`."""
        try:
            self.put(lock, self.etag)
        except ConflictError:
            found = self.look()
            if found is None or found.lock.id != self.lock.id:
                self.lost = self.taken_over(found)
                raise self.lost from None
            # Written by an attempt of ours whose answer was lost; the next one goes on from there.
            self.etag = found.etag
            raise

    def put(self, lock: Lock, etag: str | None) -> None:
        """Write the lock where it has this ETag. Raises ConflictError, or RequestError: it may be written then."""
        start = moment()
        self.etag = put_if(self.store, self.key, lock.encode(), etag)
        self.lock = lock
        self.relied_on_until = start + RELIED_ON * lock.seconds

    def taken_over(self, found: FoundLock | None) -> StoreError:
        """The error of a builder that lost its lock."""
        if found is None:
            return StoreError(f"the lock of {self.location} was deleted while it was in use; rerun")
        return StoreError(
            f"another builder ({found.lock.holder}) took over {self.location}: this one did not renew its lock for "
            f"{self.lock.seconds:g} s (suspended, or without connection); finished blocks are kept, rerun when that "
            "one is done"
        )

    def no_conditions(self) -> StoreError:
        """The error for a server that cannot keep builders apart."""
        return StoreError(
            f"cannot build in {self.location}: its server ignores the conditions of a PUT (If-None-Match, "
            "If-Match), so two builders could write at the same time; build in a folder and upload that, or use "
            "another server"
        )
