"""Open Inference Protocol, version 2, with the extensions `binary_tensor_data` and the index of
`model_repository`.
"""  # noqa: D205

import functools
from functools import partial
from typing import Final

from edgepack.agent.serve.http.bodies import json_size, plain_body
from edgepack.agent.serve.http.catalog import Catalog
from edgepack.agent.serve.http.messages import (
    JSON,
    OCTETS,
    HttpError,
    Request,
    Response,
    json_response,
)
from edgepack.agent.serve.inference import Inference
from edgepack.agent.serve.requests import to_inputs, to_tensors
from edgepack.agent.serve.served import ServedModel
from edgepack.bundle.contract import TensorSpec
from edgepack.runtime.version import version_of
from edgepack.trust.strict_json import JsonValue
from edgepack.wire.open_inference import InferAnswer, parse_infer, render_answer

_EXTENSIONS: Final = ("binary_tensor_data", "model_repository(index)")
# The protocol's names: <framework>_<format>.
_PLATFORMS: Final = {
    "onnxruntime": "onnxruntime_onnx",
    "litert": "litert_tflite",
    "tflite-runtime": "tflite_runtime_tflite",
}


class OpenInference:
    """The endpoints under `/v2`.

    Args:
        inference: Has requests answered.
        catalog: Which models there are.
        max_body_bytes: Largest body, also when it is decompressed.
    """

    def __init__(self, inference: Inference, catalog: Catalog, max_body_bytes: int) -> None:
        self._inference = inference
        self._catalog = catalog
        self._max_body_bytes = max_body_bytes

    async def server(self, _: Request) -> Response:
        """`GET /v2`."""
        return json_response(
            {"name": "edgepack", "version": _agent_version(), "extensions": list(_EXTENSIONS)}
        )

    async def live(self, _: Request) -> Response:
        """`GET /v2/health/live`: the agent answers."""
        return json_response({"live": True})

    async def ready(self, _: Request) -> Response:
        """`GET /v2/health/ready`: every model that is installed answers."""
        if not self._catalog.is_ready:
            missing = ", ".join(self._catalog.missing()) or "models"
            raise HttpError(400, f"not ready: {missing} being loaded")
        return json_response({"ready": True})

    async def index(self, _: Request) -> Response:
        """`POST /v2/repository/index`: the models by name."""
        listed: list[JsonValue] = [
            {
                "name": name,
                "version": served.installed.release.version,
                "state": "READY",
                "reason": "",
            }
            for name, served in sorted(self._catalog.registry.all().items())
        ]
        listed += [
            {"name": name, "version": "", "state": "LOADING", "reason": ""}
            for name in self._catalog.missing()
        ]
        return json_response(listed)

    async def model(self, _: Request, *, name: str, version: str | None = None) -> Response:
        """`GET /v2/models/M[/versions/V]`."""
        served = self._catalog.served(name, version)
        return json_response(
            {
                "name": name,
                "versions": [served.installed.release.version],
                "platform": _platform(served),
                "inputs": [_described(spec) for spec in served.contract.inputs],
                "outputs": [_described(spec) for spec in served.contract.outputs],
            }
        )

    async def model_ready(self, _: Request, *, name: str, version: str | None = None) -> Response:
        """`GET /v2/models/M[/versions/V]/ready`."""
        try:
            self._catalog.served(name, version)
        except HttpError as exc:
            raise HttpError(400 if exc.status == 503 else exc.status, str(exc)) from exc
        return json_response({"name": name, "ready": True})

    async def infer(self, request: Request, *, name: str, version: str | None = None) -> Response:
        """`POST /v2/models/M[/versions/V]/infer`."""
        head = request.head
        self._catalog.served(name, version)
        body = plain_body(head, request.body, self._max_body_bytes)
        asked = parse_infer(body, json_size(head))
        prediction = await self._inference.answer(
            name, partial(to_inputs, asked), request_id=asked.request_id
        )
        parts, header_bytes = render_answer(
            InferAnswer(
                name,
                prediction.version,
                asked.request_id,
                to_tensors(prediction.outputs, asked),
            )
        )
        if header_bytes is None:
            return Response(status=200, body=tuple(parts), content_type=JSON)
        size = b"%d" % header_bytes
        return Response(
            status=200,
            body=tuple(parts),
            content_type=OCTETS,
            headers=((b"Inference-Header-Content-Length", size),),
        )


def _described(spec: TensorSpec) -> JsonValue:
    return {"name": spec.name, "datatype": spec.datatype.value, "shape": list(spec.shape)}


def _platform(served: ServedModel) -> str:
    variants = {variant.name: variant for variant in served.contract.variants}
    variant = variants.get(served.installed.variant)
    engine = variant.engine.engine if variant is not None else ""
    return _PLATFORMS.get(engine, engine)


@functools.cache
def _agent_version() -> str:
    return version_of("edgepack")
