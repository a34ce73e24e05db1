"""A small HTTP client: bounded in size and time, for files, ranges of files, and registries.

Blocking: a caller gives it a thread. A device imports it when it fetches something over HTTP, not
before.
"""

from edgepack.wire.http.client import HttpClient, Response
from edgepack.wire.http.credentials import Credentials, read_credentials
from edgepack.wire.http.settings import HttpSettings
from edgepack.wire.http.url import HttpUrl, parse_url

__all__ = [
    "Credentials",
    "HttpClient",
    "HttpSettings",
    "HttpUrl",
    "Response",
    "parse_url",
    "read_credentials",
]
