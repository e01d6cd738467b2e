"""Whether weights fit a model: every key is there, none is left over, every shape is the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from h2crop_data.errors import UsageError

#: So many keys of a kind are named in an error.
NAMED = 5


def check_keys(
    own: Mapping[str, Tensor], given: Mapping[str, Tensor], source: str, remedy: str, name: Callable[[str], str] = str
) -> None:
    """Raises UsageError that names what is missing, unexpected or of another shape, and says what to do (`remedy`).

    source: what `given` comes from. name: of our keys there.
    """
    shapes = [
        f"{name(key)} {tuple(given[key].shape)} instead of {tuple(own[key].shape)}"
        for key in own
        if key in given and given[key].shape != own[key].shape
    ]
    problems = [
        listed_keys("missing", [name(key) for key in own if key not in given]),
        listed_keys("unexpected", [name(key) for key in given if key not in own]),
        listed_keys("of another shape", shapes),
    ]
    found = "; ".join(filter(None, problems))
    if found:
        raise UsageError(f"{source} does not fit the model's configuration: {found}; {remedy}")


def listed_keys(kind: str, names: list[str]) -> str:
    """`3 missing: a, b, c`; empty for no names."""
    if not names:
        return ""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{len(names)} {kind}: {', '.join(names[:NAMED])}{more}"
