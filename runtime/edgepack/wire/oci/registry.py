"""A repository of a registry: manifests and blobs out and in, by OCI's distribution API 1.1."""

import contextlib
from collections.abc import Iterable, Iterator
from urllib.parse import quote

from edgepack.wire.errors import StatusError, TransferError
from edgepack.wire.http.client import HttpClient, Response
from edgepack.wire.http.credentials import Credentials
from edgepack.wire.oci.reference import Reference, signature_tag
from edgepack.wire.oci.session import Session

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
_OCTETS = "application/octet-stream"
_ABSENT = (404, 400)  # some registries call a tag or digest that they do not know malformed


class Registry:
    """One repository.

    Args:
        client: Sends requests.
        reference: Registry and repository.
        credentials: By server.
        plain_http: Registries that are spoken to without TLS.
    """

    def __init__(
        self,
        client: HttpClient,
        reference: Reference,
        credentials: Credentials | None = None,
        plain_http: tuple[str, ...] = (),
    ) -> None:
        self._session = Session(client, reference, credentials or Credentials(), plain_http)

    def manifest(self, name: str, max_bytes: int) -> bytes | None:
        """A manifest or index by tag or digest, NOT verified; None where there is none.

        Raises:
            TransferError: The registry does not give it, or it is larger than that.
        """
        url = self._session.url(f"manifests/{name}")
        with self._session.request("GET", url, headers={"Accept": f"{MANIFEST}, {INDEX}"}) as found:
            if found.status in _ABSENT:
                return None
            found.expect(200)
            return found.read_all(max_bytes, "manifest")

    def referrers(self, digest: str, artifact_type: str, max_bytes: int) -> bytes | None:
        """The index of what refers to a manifest; None where nothing does.

        By the referrers API, else by the tag `sha256-HEX`.

        Raises:
            TransferError: The registry does not answer.
        """
        path = f"referrers/{digest}?artifactType={quote(artifact_type, safe='')}"
        with self._session.request(
            "GET", self._session.url(path), headers={"Accept": INDEX}
        ) as found:
            if found.status == 200:
                return found.read_all(max_bytes, "referrers")
            if found.status not in (404, 405):
                found.expect(200)
        return self.manifest(signature_tag(digest), max_bytes)

    @contextlib.contextmanager
    def blob(self, digest: str, *, offset: int = 0) -> Iterator[tuple[Response, int]]:
        """A blob's bytes, NOT verified, if possible from an offset on.

        Gives:
            The answer, and the offset that its body begins at.

        Raises:
            TransferError: The registry does not give it.
        """
        headers = {"Accept": _OCTETS}
        if offset:
            headers["Range"] = f"bytes={offset}-"
        with self._session.request(
            "GET", self._session.url(f"blobs/{digest}"), headers=headers
        ) as found:
            found.expect(200, 206)
            begins = 0
            if found.status == 206:
                if not (found.header("Content-Range") or "").startswith(f"bytes {offset}-"):
                    raise TransferError(f"{found.url.shown} answered a range with another one")
                begins = offset
            yield found, begins

    def has_blob(self, digest: str) -> bool:
        """Whether the repository has a blob.

        Raises:
            TransferError: The registry does not answer.
        """
        with self._session.request("HEAD", self._session.url(f"blobs/{digest}")) as found:
            if found.status == 404:
                return False
            found.expect(200)
            return True

    def mount(self, digest: str, repository: str) -> bool:
        """Take a blob over from another repository of the registry; False where it refuses.

        Raises:
            TransferError: The registry does not answer.
        """
        path = f"blobs/uploads/?mount={digest}&from={quote(repository, safe='')}"
        with self._session.request("POST", self._session.url(path), body=b"") as found:
            found.expect(201, 202, 404, 405)
            return found.status == 201

    def upload(self, digest: str, size_bytes: int, pieces: Iterable[bytes]) -> None:
        """Put a blob there.

        Raises:
            TransferError: The registry does not take it.
        """
        start = self._session.url("blobs/uploads/")
        with self._session.request("POST", start, body=b"") as begun:
            begun.expect(202)
            location = begun.header("Location") or ""
        place = self._session.location(start, location)
        joint = "&" if "?" in place.target else "?"
        target = self._session.location(start, f"{place.full}{joint}digest={digest}")
        with self._session.request(
            "PUT",
            target,
            headers={"Content-Type": _OCTETS},
            body=pieces if size_bytes else b"",
            body_bytes=size_bytes,
        ) as done:
            done.expect(201)

    def put_manifest(self, name: str, data: bytes, media_type: str = MANIFEST) -> bool:
        """Put a manifest or index there under a tag or digest; its blobs must be there.

        Returns:
            Whether the registry itself lists it among the referrers of its subject.

        Raises:
            TransferError: The registry does not take it.
        """
        url = self._session.url(f"manifests/{name}")
        with self._session.request(
            "PUT", url, headers={"Content-Type": media_type}, body=data
        ) as done:
            if done.status not in (200, 201, 202):
                told = done.read_all(64 * 1024, "error")[:200].decode("utf-8", "replace")
                raise StatusError(
                    f"{done.url.shown} answered {done.status}: {' '.join(told.split())}",
                    status=done.status,
                )
            return done.header("OCI-Subject") is not None
