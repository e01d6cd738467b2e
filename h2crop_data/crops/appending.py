"""The classes that a new version of the taxonomy appends, by a rule."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from h2crop_data.constants import TIER_DIGITS, UNKNOWN
from h2crop_data.crops.hcat import hcat3_names, significant
from h2crop_data.crops.lookup import rows_of_country
from h2crop_data.crops.tables import country_tables
from h2crop_data.crops.taxonomy import Taxonomy

#: Words of codes that say that a crop was not told further: no class of their own.
NOT_TOLD = ("unspecified", "not_known")


@dataclass(frozen=True)
class AppendedClass:
    """A class to append."""

    tier: int
    id: int
    prefix: str
    name: str


def appended_classes(taxonomy: Taxonomy, named_in: Mapping[str, Iterable[str]], least: int) -> list[AppendedClass]:
    """The classes to append to a version of the taxonomy, in order of tier and id.

    A code of HCAT3 becomes a class of tier 4 if at least `least` countries name it, its name does not say
    unspecified, no code of HCAT3 lies below it, and it lies below no class of tier 4: classes of a tier never overlap.
    It also gets the classes of the tiers above that it lacks. Ids follow in the order of HCAT3's list, until a tier
    has 254. named_in: HCAT3 code -> countries that have a code for it.
    """
    names = hcat3_names()
    classes = [dict(tier) for tier in taxonomy.classes]
    found: list[AppendedClass] = []
    for code in sorted(names):
        if len(set(named_in.get(code, ()))) < least or not may_be_class(code, names, taxonomy):
            continue
        wanted = [
            (tier, code[:digits])
            for tier, digits in enumerate(TIER_DIGITS, 1)
            if code[:digits] not in classes[tier - 1]
        ]
        if any(len(classes[tier - 1]) >= UNKNOWN - 1 for tier, _ in wanted):
            continue
        for tier, prefix in wanted:
            name = names.get(prefix.ljust(TIER_DIGITS[-1], "0"), names[code])
            added = AppendedClass(tier, len(classes[tier - 1]) + 1, prefix, name)
            classes[tier - 1][prefix] = (added.id, name)
            found.append(added)
    return sorted(found, key=lambda one: (one.tier, one.id))


def may_be_class(code: str, names: Mapping[str, str], taxonomy: Taxonomy) -> bool:
    """Whether a code can be a class of tier 4 beside those there are."""
    if code in taxonomy.classes[-1] or any(word in names[code] for word in NOT_TOLD):
        return False
    below = any(other != code and other.startswith(significant(code)) for other in names)
    inside = any(code.startswith(significant(other)) for other in taxonomy.classes[-1])
    return not below and not inside


def countries_by_code() -> dict[str, set[str]]:
    """HCAT3 code -> countries whose tables have a code for it; regions of a country count once."""
    found: dict[str, set[str]] = defaultdict(set)
    for table in country_tables():
        for row in rows_of_country(table):
            if row.hcat3:
                found[row.hcat3].add(table.split("-")[0])
    return found
