"""From a source's name to the source. What speaks HTTP is imported here, when it is needed."""

from pathlib import Path
from typing import TYPE_CHECKING

from edgepack.agent.config import FetchConfig
from edgepack.agent.errors import FetchError
from edgepack.agent.install.sources.mqtt import MqttSource, Retained
from edgepack.agent.install.sources.source import Source
from edgepack.agent.install.sources.thread import ThreadSource
from edgepack.trust.values import dataclass
from edgepack.wire.desired import DesiredModel
from edgepack.wire.errors import WireError
from edgepack.wire.throttle import Throttle

if TYPE_CHECKING:
    from edgepack.wire.http import Credentials, HttpClient

MQTT = "mqtt:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Opens sources.

    Attributes:
        link: Gives retained messages.
        prefix: MQTT topic prefix.
        config: How servers are reached.
        throttle: The rate that all sources of the network share, or None.
        max_bundle_bytes: Nothing larger is fetched.
    """

    link: Retained
    prefix: str
    config: FetchConfig
    throttle: Throttle | None
    max_bundle_bytes: int

    def open(self, source: str, model: DesiredModel) -> Source:
        """Open one of a model's sources; nothing is asked of it yet.

        Raises:
            FetchError: It is none that can be fetched from, or the credentials cannot be read.
        """
        try:
            return self._open(source, model)
        except WireError as exc:
            raise FetchError(str(exc)) from exc

    def _open(self, source: str, model: DesiredModel) -> Source:
        if source == MQTT:
            return MqttSource(self.link, self.prefix, model, self.throttle)
        if source.startswith("file:"):
            from edgepack.agent.install.sources.file import FileSource

            return ThreadSource(FileSource(source, model.digest))
        if source.startswith("oci:"):
            return self._registry(source, model)
        return self._server(source, model)

    def _registry(self, source: str, model: DesiredModel) -> Source:
        from edgepack.agent.install.sources.oci import OciSource
        from edgepack.wire.oci import parse_reference

        return ThreadSource(
            OciSource(
                self._client(),
                parse_reference(source),
                model,
                credentials=self._credentials(),
                plain_http=self.config.plain_http,
            )
        )

    def _server(self, source: str, model: DesiredModel) -> Source:
        from edgepack.agent.install.sources.http import HttpSource
        from edgepack.wire.http import parse_url
        from edgepack.wire.http.credentials import basic_header
        from edgepack.wire.http.url import is_loopback

        url = parse_url(source)
        header = self._credentials().basic(url.host, url.port)
        if url.scheme == "http" and not (
            is_loopback(url.host) or {url.host, url.authority} & set(self.config.plain_http)
        ):
            header = None  # a password does not go over an open line unless somebody said so
        if url.user is not None:
            header = basic_header(url.user, url.password or "")
        return ThreadSource(
            HttpSource(
                self._client(),
                url,
                model.digest,
                headers={} if header is None else {"Authorization": header},
                max_bytes=model.archive_size_bytes or self.max_bundle_bytes,
            )
        )

    def _client(self) -> "HttpClient":
        from edgepack.wire.http import HttpClient, HttpSettings

        settings = HttpSettings(
            ca_file=self.config.ca_file, proxy=self.config.proxy, stall_s=self.config.stall_s
        )
        return HttpClient(settings, self.throttle)

    def _credentials(self) -> "Credentials":
        from edgepack.wire.http import Credentials, read_credentials

        if self.config.credentials_file is None:
            return Credentials()
        return read_credentials(Path(self.config.credentials_file))
