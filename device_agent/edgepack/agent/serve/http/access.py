"""Who may ask: whoever has the token, and nobody's web page."""

import hmac
from collections.abc import Callable

from edgepack.agent.serve.http.messages import Head, HttpError
from edgepack.trust.values import dataclass

_CHALLENGE = ((b"WWW-Authenticate", b'Bearer realm="edgepack"'),)


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """The rule of one server.

    Attributes:
        token: Gives what callers over TCP must show now; None: everybody on this machine may ask.
    """

    token: Callable[[], bytes] | None = None

    def check(self, head: Head) -> None:
        """Let a caller in.

        Raises:
            HttpError: 401 without the right token; 403 for a web page where there is no token: a
                browser on this machine would otherwise let any site ask.
        """
        if head.is_local:
            return
        if self.token is None:
            if b"origin" in head.headers:
                raise HttpError(403, "web pages may not ask without a token")
            return
        scheme, _, given = head.headers.get(b"authorization", b"").partition(b" ")
        right = hmac.compare_digest(given.strip(), self.token())
        if scheme.lower() != b"bearer" or not right:
            raise HttpError(401, "a bearer token is needed", headers=_CHALLENGE)
