"""Make a bucket on an S3 server, if it does not exist: make_bucket.py NAME

The server and its keys are those of the environment (docs/object-stores.md), so the builder has access to it.
"""

from __future__ import annotations

import os
import sys
from urllib.parse import urlsplit

from pyarrow.fs import FileType, S3FileSystem

#: Seconds for a connection and for an answer.
CONNECT, ANSWER = 10.0, 30.0


def make_bucket(name: str) -> bool:
    """Make a bucket; False where it is there already. Raises OSError with the server's words."""
    address = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    server = urlsplit(address)
    files = S3FileSystem(
        endpoint_override=server.netloc or None,
        scheme=server.scheme or "https",
        region=os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1",
        allow_bucket_creation=True,
        connect_timeout=CONNECT,
        request_timeout=ANSWER,
    )
    if files.get_file_info(name).type is not FileType.NotFound:
        return False
    files.create_dir(name, recursive=False)
    return True


def main(arguments: list[str]) -> int:
    """Exit code 1 with the cause where the bucket is not there at the end."""
    (name,) = arguments
    try:
        made = make_bucket(name)
    except OSError as error:
        print(f"cannot make the bucket {name}: {error}", file=sys.stderr)
        return 1
    print(f"{name}: {'made' if made else 'there already'}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
