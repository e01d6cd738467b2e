"""The errors h2crop raises on purpose: each says what is wrong, where, and what to do.

Every error is also the builtin exception that fits it, so callers may catch either.
"""

from __future__ import annotations


class H2cropError(Exception):
    """Base of all errors a user can act on; the command line prints them without a stack trace (exit code 1)."""


class UsageError(H2cropError, ValueError):
    """An option or argument is wrong, of the command line or of a function: names it and what to give (exit code 2)."""


class RecipeError(H2cropError, ValueError):
    """A recipe, its area file or a split list is wrong: names the place, the value, what is allowed (exit code 2)."""


class CatalogError(H2cropError, RuntimeError):
    """A catalog did not answer, or answered with something that is not STAC."""


class CatalogOutageError(CatalogError):
    """A catalog did not answer in any try, or said that it is down or busy: it may be back later."""


class IncompleteSearchError(CatalogError):
    """A search whose pages do not hold what the catalog promises."""


class SceneError(H2cropError, ValueError):
    """A scene cannot be used: undecidable offset, missing asset, wrong bands."""


class ReadError(H2cropError, OSError):
    """An asset of a scene could not be read after every retry."""


class ArchiveOutageError(ReadError):
    """A file's server did not answer in any try, or said that it is down or busy: it may be back later."""


class AccountError(H2cropError, RuntimeError):
    """An account, keys or library that an archive wants are not there: names them and what to do.

    No read error: no other try helps, and it is never recorded as a gap.
    """


class ParcelError(H2cropError, ValueError):
    """A parcel file or crop table cannot be used."""


class PlanError(H2cropError, ValueError):
    """A plan is empty, damaged or does not fit the store it is built into."""


class NothingToPlanError(PlanError):
    """A season has nothing to build, or nothing more: no scene, no cell that is seen. Early in a year there may be."""


class StoreError(H2cropError, OSError):
    """A store is missing, damaged, or held by another builder."""


class StoreOutageError(StoreError):
    """The server of a store's bucket did not answer in any try, or said that it is down or busy."""


class HeldStoreError(StoreError):
    """A store is held by another builder: says by which. Nothing is wrong with it; wait, or end the other builder."""


class MissingFileError(StoreError, FileNotFoundError):
    """A file of a store is not there."""


class FormatVersionError(StoreError):
    """A store was written in a format this version does not read."""


class ModelError(H2cropError, OSError):
    """A folder of a saved model is missing, damaged, or in a format this version does not read."""


class PluginError(H2cropError, ImportError):
    """A source that another package brings cannot be used, or is not installed."""


class ClusterError(H2cropError, RuntimeError):
    """A Dask cluster does not answer, has workers unlike this machine, or was lost; what is finished is kept."""


class StoreWarning(UserWarning):
    """A store can be read, but not as well as it could; the command line prints it in one line."""
