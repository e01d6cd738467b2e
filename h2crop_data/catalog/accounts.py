"""Accounts at archives, from the environment, ~/.netrc and AWS profiles; each is sent only to its own host."""

from __future__ import annotations

import configparser
import netrc
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

from h2crop_data.catalog.provider import FilePlace, Provider
from h2crop_data.errors import AccountError, UsageError
from h2crop_data.settings import ACCOUNT_HOST, ArchiveAccount, Keys, session_cookies, text_of

#: Variables that errors name; `settings` has them all.
KEY_ID, SECRET_KEY, PROFILE = "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"
USER, PASSWORD, COOKIE = (f"H2CROP_DOWNLOAD_{name}" for name in ("USER", "PASSWORD", "COOKIE"))


@dataclass(frozen=True)
class Account:
    """An account at the host of an archive; it is never sent to another host, and never printed."""

    host: str = ACCOUNT_HOST
    user: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    #: `name=value; name=value`, as a browser shows the cookies of a session.
    cookie: str = field(default="", repr=False)

    @classmethod
    def from_environment(cls) -> Account:
        """The account of the environment variables. Raises UsageError if only user or password is set."""
        settings = ArchiveAccount.read()
        if (settings.user is None) != (settings.password is None):
            raise UsageError(f"set both {USER} and {PASSWORD}, or neither")
        return cls(settings.host, *map(text_of, (settings.user, settings.password, settings.cookie)))

    def cookies(self) -> dict[str, str]:
        """The cookies by name. Raises UsageError for a damaged one."""
        try:
            return session_cookies(self.cookie)
        except ValueError as error:
            raise UsageError(f"{COOKIE}: invalid value, {error}") from None

    def auth(self, url: str) -> tuple[str, str] | None:
        """User and password for an address; None for other hosts, and where `.netrc` or a cookie is used."""
        own = urlsplit(url).hostname == self.host
        return (self.user, self.password) if own and self.user else None

    def headers(self, url: str) -> dict[str, str]:
        """The request headers that send the session of a browser to an address; none elsewhere."""
        cookies = self.cookies() if urlsplit(url).hostname == self.host else {}
        return {"Cookie": "; ".join(f"{name}={value}" for name, value in cookies.items())} if cookies else {}


@dataclass(frozen=True)
class S3Keys:
    """Keys of an account at a bucket."""

    key_id: str = field(repr=False)
    secret: str = field(repr=False)
    token: str = field(default="", repr=False)
    #: Where they were found, in words.
    found: str = ""


def s3_keys(provider: str) -> S3Keys | None:
    """The keys for the buckets of a provider; None where there are none.

    Of a profile in ~/.aws/credentials that is meant for archives: the one that AWS_PROFILE names, else that of the
    provider's name. Then those of the environment, which may be the keys of a store in a bucket of its own. Last, where
    AWS_PROFILE names none, the profile `default`.
    """
    settings, profiles = Keys.read(), aws_profiles()
    keys = keys_of_profile(profiles, settings.profile or provider)
    if keys is None and settings.key_id and settings.secret:
        key_id, secret, token = map(text_of, (settings.key_id, settings.secret, settings.token))
        keys = S3Keys(key_id, secret, token, f"{KEY_ID} and {SECRET_KEY}")
    return keys or (None if settings.profile else keys_of_profile(profiles, "default"))


def keys_of_profile(profiles: configparser.ConfigParser, name: str) -> S3Keys | None:
    """The keys of a profile; None where it is not there or has none."""
    section = profiles[name] if profiles.has_section(name) else {}
    key_id, secret = section.get("aws_access_key_id", ""), section.get("aws_secret_access_key", "")
    if not (key_id and secret):
        return None
    return S3Keys(key_id, secret, section.get("aws_session_token", ""), f"profile {name}")


def aws_profiles() -> configparser.ConfigParser:
    """The AWS profiles on this machine; empty without a file. Raises AccountError."""
    path = (Keys.read().profiles or Path("~/.aws/credentials")).expanduser()
    # `default` is a profile like others, keys may have a percent sign, and errors show lines of the file.
    profiles = configparser.ConfigParser(default_section="", interpolation=None)
    try:
        profiles.read(path, encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError):
        raise AccountError(f"{path} is damaged: expected a line [name], followed by aws_access_key_id = ...") from None
    return profiles


def netrc_has(host: str) -> bool:
    """Whether ~/.netrc has an account for a host. Raises AccountError for a damaged file."""
    path = (ArchiveAccount.read().netrc or Path("~/.netrc")).expanduser()
    try:
        return netrc.netrc(path).authenticators(host) is not None
    except FileNotFoundError:
        return False
    except (netrc.NetrcParseError, OSError) as error:
        # The error of the parser would show a word of the file.
        what = (
            error.strerror
            if isinstance(error, OSError)
            else "it is damaged, or other users can read it (fix: chmod 600)"
        )
        raise AccountError(f"cannot read {path}: {what}") from None


def check_account(provider: Provider, place: FilePlace) -> str:
    """Where the account for some files was found, in words; empty where none is needed.

    Raises AccountError that names what is missing.
    """
    if place.netrc is not None:
        account = Account.from_environment()
        if account.host == place.netrc and (account.user or account.cookie):
            return USER if account.user else COOKIE
        if not netrc_has(place.netrc):
            raise AccountError(
                f"{provider.title}: no account for {place.netrc} in ~/.netrc or in {USER} and {PASSWORD}; "
                f"{place.remedy}"
            )
        return f"~/.netrc, {place.netrc}"
    if place.s3 is not None:
        return keys_for(provider, place).found
    if place.library and find_spec(place.library) is None:
        raise AccountError(f"{provider.title}: the package {place.library} is not installed; {place.remedy}")
    return ""


def keys_for(provider: Provider, place: FilePlace) -> S3Keys:
    """The keys for the buckets of a provider. Raises AccountError that names what is missing."""
    keys = s3_keys(provider.name)
    if keys is None:
        raise AccountError(
            f"{provider.title}: no S3 keys; {place.remedy}, then set {KEY_ID} and {SECRET_KEY}, or write a profile "
            f"[{provider.name}] into ~/.aws/credentials ({PROFILE} selects another profile)"
        )
    return keys
