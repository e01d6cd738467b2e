"""An archive that lends its files: each address is signed, and a signature soon ends."""

import os
from urllib.parse import urlsplit

import requests

from h2crop_data.catalog.provider import FilePlace, OfferedCollection, Provider, S3Access

#: Where it listens; tests start it anywhere.
ROOT = os.environ.get("LENDER_URL", "https://lender.example")
MEMBERS = os.environ.get("LENDER_MEMBERS", "https://members.lender.example")


def signed(address: str) -> str:
    """An address with the signature that is valid now."""
    answer = requests.get(f"{ROOT}/sign", {"address": address}, timeout=10)
    answer.raise_for_status()
    if "X-Odd" in answer.headers:
        # As libraries do, with all they know.
        raise ValueError(f"cannot make use of {address}?sig={answer.text}")
    return f"{address}?sig={answer.text}"


LENDER = Provider(
    name="lender",
    title="The lender",
    api=os.environ.get("LENDER_API", f"{ROOT}/stac"),
    collections=(OfferedCollection("sentinel-2-l2a", "sentinel2", "L2A", "COG", "kept"),),
    files=(
        FilePlace((f"{ROOT}/files/*",), needs="nothing but its signature", sign=signed, connections=3),
        FilePlace(
            ("s3://lent/*",),
            needs="keys",
            remedy="ask the lender",
            s3=S3Access(os.environ.get("LENDER_S3", "s3.lender.example"), https=False),
        ),
        FilePlace(
            (f"{MEMBERS}/*",),
            needs="an account",
            remedy="become a member",
            netrc=urlsplit(MEMBERS).hostname,
        ),
    ),
    band_assets={"B02": ("blue", "blau"), "SCL": ("scl",)},
)
