"""Words that texts for readers do not use, and what to write instead: of the package, and of the pages."""

from __future__ import annotations

import re

#: Pattern -> what to write. Each has one wrong meaning only, so that a hit is always a text to change.
BANNED = {
    r"\bmend(?:s|ing)?\b|\bis mended\b": "fix, repair",
    r"\bfor ever\b": "permanently",
    r"\bmade good\b": "corrected",
    r"\banew\b": "again; rebuild, rewrite, recompute",
    r"\bnobody\b": "unknown; not known; no user",
    r"\bgo(?:es|ne)? on (?:with|from|without|where|there)\b": "continue",
    r"\b(?:is|are|was|were) (?:not )?told\b": "is reported, is shown",
    r"\b(?:held by another|(?:its|the|a) hold|lost (?:its|the) hold)\b": "locked; the lock",
    r"(?<!there )\bis no (?:number|file|store|cell|id|polygon|list|text|table|TIFF|XML|CRS|recipe|plan|catalog|scene|"
    r"raster|mapping|tile|item|version|longitude|latitude|ItemCollection|flag|multiple)\b": "is not a ..., invalid ...",
    r"\brun (?:it|the same command|the build|the import|the export) again\b": "rerun",
    r"\bcannot be looked (?:for|at)\b": "cannot be detected, examined",
    r"\bwhoever\b": "the user, the operator",
    r"\bby itself alone\b": "only",
    r"\bin silence\b": "silently",
}


#: The same for pages, whose British spelling codespell does not check.
BANNED_IN_PAGES = BANNED | {
    r"\bgo(?:es|ing)? on\b": "continue",
    r"\b(?:told|tells)\b": "report, show, state",
    r"\blooked at\b": "examined, checked",
    r"\bwithout a word\b": "unnoticed; without a message",
    r"\bin vain\b": "without success",
    r"\bfor want of\b": "for lack of",
    r"\bnext to nothing\b": "almost zero",
    r"\btyped? (?:it )?again\b": "rerun",
    r"\b(?:colors?|behaviors?|centers?|neighbors?|meters?|gray)\b": "the British spelling",
    # The name of a format is as it is.
    r"(?<!Cloud )\b[a-z]+(?:aliz|imiz|lyz|gniz)(?:e[sd]?|ing|ation)\b": "the British spelling",
}
#: Code of a page, and messages that it quotes.
CODE = re.compile(r"^```.*?^```$|`[^`]*`", re.DOTALL | re.MULTILINE)


def banned_in(text: str, banned: dict[str, str] = BANNED) -> list[str]:
    """What a text has of the words that are not used, each with what to write instead."""
    return [
        f"{found.group()!r}: write {instead}"
        for pattern, instead in banned.items()
        for found in re.finditer(pattern, text, re.IGNORECASE)
    ]


def banned_in_page(text: str) -> list[str]:
    """The same of a page, without its code and the messages that it quotes."""
    return banned_in(" ".join(CODE.sub("`", text).split()), BANNED_IN_PAGES)
