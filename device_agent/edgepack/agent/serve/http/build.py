"""Puts the HTTP server of an agent together, and keeps it listening."""

import asyncio
import logging
import ssl
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from edgepack.agent.config.http import HttpConfig, listen_address, read_token
from edgepack.agent.errors import ConfigError
from edgepack.agent.serve.http.access import Access
from edgepack.agent.serve.http.catalog import Catalog
from edgepack.agent.serve.http.limits import HttpLimits
from edgepack.agent.serve.http.metrics import Metrics
from edgepack.agent.serve.http.open_inference import OpenInference
from edgepack.agent.serve.http.renewal import Renewed, renewing
from edgepack.agent.serve.http.server import HttpServer
from edgepack.agent.serve.http.site import Route, RoutedSite
from edgepack.agent.serve.http.tensorflow_serving import TensorflowServing
from edgepack.agent.serve.inference import Inference
from edgepack.wire.messages import Scalar

logger = logging.getLogger(__name__)

_RETRY_S = 5.0
_DRAIN_S = 5.0


class HttpService:
    """The agent's door over HTTP.

    Args:
        config: agent.toml's `[http]`.
        inference: Has requests answered.
        catalog: Which models there are.
        notice: Told what a person should know: kind and one line, empty when it is over.
        agent_figures: What the agent says of itself, by the names of `out/agent`.
        limits: Fields of HttpLimits that are not to have their defaults.

    Raises:
        ConfigError: The token, the certificate or its key cannot be read.
    """

    def __init__(
        self,
        config: HttpConfig,
        inference: Inference,
        catalog: Catalog,
        *,
        notice: Callable[[str, str], None],
        agent_figures: Callable[[], Mapping[str, Scalar | None]] = dict,
        limits: Mapping[str, float] | None = None,
    ) -> None:
        self._config = config
        self._notice = notice
        self._complaints: dict[str, str] = {}
        self._tls = self._tls_of(config)
        bounds = HttpLimits(
            max_body_bytes=int(config.max_body_mb * 1e6),
            max_connections=config.max_connections,
        )
        bounds = replace(bounds, **(limits or {}))  # type: ignore[arg-type]  # ints are floats here
        token = self._token_of(config.token_file)
        size = bounds.max_body_bytes
        metrics = Metrics(inference, catalog, lambda: self.server.traffic, agent_figures)
        routes = [
            *_open_inference_routes(OpenInference(inference, catalog, size)),
            *_tensorflow_routes(TensorflowServing(inference, catalog, size)),
            Route("GET", ("metrics",), metrics.metrics),
        ]
        self.server = HttpServer(RoutedSite(routes, Access(token=token)), bounds)
        self.addresses: list[str] = []

    async def open(self) -> None:
        """Listen where the configuration says; what cannot be used is tried again later."""
        await self._listen()

    async def run(self) -> None:
        """Keep listening until cancelled."""
        while not await self._listen():
            await asyncio.sleep(_RETRY_S)
        await asyncio.Event().wait()

    async def close(self) -> None:
        """Let what is under way be answered, and end."""
        await self.server.close(_DRAIN_S)

    async def _listen(self) -> bool:
        """Listen where it does not yet; False when it should be tried again."""
        wrong = []
        for name, address in (("listen", self._config.listen), ("socket", self._config.socket)):
            if address is None or any(name == known.partition("=")[0] for known in self.addresses):
                continue
            try:
                shown = await self._listen_at(name, address)
            except OSError as exc:
                wrong.append(f"{address}: {exc.strerror or exc}")
                continue
            self.addresses.append(f"{name}={shown}")
            logger.info("http.listening %s=%s tls=%s", name, shown, self._tls is not None)
        self._complain("listen", f"cannot listen at {'; '.join(wrong)}" if wrong else "")
        return not wrong

    def _complain(self, about: str, text: str) -> None:
        self._complaints[about] = text
        self._notice("http", "; ".join(text for text in self._complaints.values() if text))

    def _token_of(self, path: str | None) -> Renewed[bytes] | None:
        if path is None:
            return None
        return Renewed((path,), lambda: read_token(path), partial(self._complain, "token"))

    def _tls_of(self, config: HttpConfig) -> ssl.SSLContext | None:
        cert, key = config.cert_file, config.key_file
        if cert is None or key is None:
            return None
        read = partial(_tls_context, cert, key)
        # a handshake costs more than a look
        return renewing(Renewed((cert, key), read, partial(self._complain, "tls"), look_s=0.0))

    async def _listen_at(self, name: str, address: str) -> str:
        if name == "socket":
            await self.server.listen_unix(Path(address))
            return address
        where = listen_address(address)
        host, port = await self.server.listen(where.host, where.port, tls=self._tls)
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _open_inference_routes(api: OpenInference) -> list[Route]:
    model = ("v2", "models", "*")
    version = (*model, "versions", "*")
    one, two = ("name",), ("name", "version")
    return [
        Route("POST", (*model, "infer"), api.infer, one),
        Route("POST", (*version, "infer"), api.infer, two),
        Route("GET", ("v2",), api.server),
        Route("GET", ("v2", "health", "live"), api.live, is_public=True),
        Route("GET", ("v2", "health", "ready"), api.ready, is_public=True),
        Route("GET", model, api.model, one),
        Route("GET", version, api.model, two),
        Route("GET", (*model, "ready"), api.model_ready, one),
        Route("GET", (*version, "ready"), api.model_ready, two),
        Route("POST", ("v2", "repository", "index"), api.index),
    ]


def _tensorflow_routes(api: TensorflowServing) -> list[Route]:
    model = ("v1", "models", "*")
    version = (*model, "versions", "*")
    one, two = ("name",), ("name", "version")
    return [
        Route("POST", ("v1", "models", "*:predict"), api.predict, one),
        Route("POST", (*model, "versions", "*:predict"), api.predict, two),
        Route("GET", model, api.status, one),
        Route("GET", version, api.status, two),
        Route("GET", (*model, "metadata"), api.metadata, one),
        Route("GET", (*version, "metadata"), api.metadata, two),
    ]


def _tls_context(cert: str, key: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(cert, key)
    except (OSError, ssl.SSLError) as exc:
        detail = getattr(exc, "strerror", None) or exc
        raise ConfigError(
            f"http.cert_file {cert} with http.key_file {key} cannot be used: {detail}"
        ) from exc
    return context
