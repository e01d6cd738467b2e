"""The errors that h2crop raises: each states what is wrong, where, and what to do.

Every error is also the builtin exception that fits it, so callers may catch either.
"""

from __future__ import annotations


class H2cropError(Exception):
    """Base of all errors that a user can fix; the command line prints them without a stack trace (exit code 1)."""


class UsageError(H2cropError, ValueError):
    """An invalid option or argument, of the command line or of a function; names it and what to give (exit code 2)."""


class RecipeError(H2cropError, ValueError):
    """An invalid recipe, area file or split list; names the place, the value and what is allowed (exit code 2)."""


class CatalogError(H2cropError, RuntimeError):
    """A catalog did not answer, or its answer is not valid STAC."""


class CatalogOutageError(CatalogError):
    """A catalog did not answer in any try, or reported that it is down or busy; it may answer later."""


class IncompleteSearchError(CatalogError):
    """A search whose pages do not have the number of items that the catalog states."""


class SceneError(H2cropError, ValueError):
    """A scene cannot be used: undecidable offset, missing asset, wrong bands."""


class ReadError(H2cropError, OSError):
    """An asset of a scene could not be read after every retry."""


class ArchiveOutageError(ReadError):
    """The server of a file did not answer in any try, or reported that it is down or busy; it may answer later."""


class AccountError(H2cropError, RuntimeError):
    """A missing account, key or library that an archive requires; names it and what to do.

    It is not a ReadError: retries do not help, and it is never recorded as a gap.
    """


class ParcelError(H2cropError, ValueError):
    """A parcel file or crop table cannot be used."""


class PlanError(H2cropError, ValueError):
    """A plan is empty, damaged or does not fit the store it is built into."""


class NothingToPlanError(PlanError):
    """A season has nothing to build, or nothing more: no scene, or no cell with an image. Early in a year this can be
    normal."""


class StoreError(H2cropError, OSError):
    """A store is missing, damaged, or locked by another builder."""


class StoreOutageError(StoreError):
    """The server of a store's bucket did not answer in any try, or reported that it is down or busy."""


class HeldStoreError(StoreError):
    """A store is locked by another builder, which the message names. The store is not damaged; wait, or end the other
    builder."""


class MissingFileError(StoreError, FileNotFoundError):
    """A file of a store is missing."""


class FormatVersionError(StoreError):
    """A store was written in a format this version does not read."""


class ModelError(H2cropError, OSError):
    """A folder of a saved model is missing, damaged, or in a format this version does not read."""


class PluginError(H2cropError, ImportError):
    """A source of another package cannot be used, or is not installed."""


class ClusterError(H2cropError, RuntimeError):
    """A Dask cluster does not answer, has workers that differ from this machine, or was lost; finished work is kept."""


class StoreWarning(UserWarning):
    """A store can be read, but with a restriction; the command line prints it in one line."""
