"""TensorFlow Serving's REST interface, for clients that speak it already."""

from functools import partial
from typing import Final

from edgepack.agent.serve.http.bodies import plain_body
from edgepack.agent.serve.http.catalog import Catalog
from edgepack.agent.serve.http.messages import HttpError, Request, Response, json_response
from edgepack.agent.serve.inference import Inference
from edgepack.agent.serve.predict_rows import columns_of, inputs_of, predictions_of
from edgepack.bundle.contract import Datatype, TensorSpec
from edgepack.trust.strict_json import JsonValue
from edgepack.wire.tensorflow_serving import DEFAULT_SIGNATURE, parse_predict

_DTYPES: Final = {
    Datatype.BOOL: "DT_BOOL",
    Datatype.FP16: "DT_HALF",
    Datatype.FP32: "DT_FLOAT",
    Datatype.FP64: "DT_DOUBLE",
    Datatype.BYTES: "DT_STRING",
}


class TensorflowServing:
    """The endpoints under `/v1`.

    Args:
        inference: Has requests answered.
        catalog: Which models there are.
        max_body_bytes: Largest body, also when it is decompressed.
    """

    def __init__(self, inference: Inference, catalog: Catalog, max_body_bytes: int) -> None:
        self._inference = inference
        self._catalog = catalog
        self._max_body_bytes = max_body_bytes

    async def status(self, _: Request, *, name: str, version: str | None = None) -> Response:
        """`GET /v1/models/M[/versions/V]`."""
        try:
            served = self._catalog.served(name, version)
        except HttpError as exc:
            if exc.status != 503:
                raise
            return json_response(_status("", "LOADING"))
        return json_response(_status(served.installed.release.version, "AVAILABLE"))

    async def metadata(self, _: Request, *, name: str, version: str | None = None) -> Response:
        """`GET /v1/models/M[/versions/V]/metadata`."""
        served = self._catalog.served(name, version)
        contract = served.contract
        signature: JsonValue = {
            "inputs": {spec.name: _described(spec) for spec in contract.inputs},
            "outputs": {spec.name: _described(spec) for spec in contract.outputs},
            "method_name": "tensorflow/serving/predict",
        }
        spec: JsonValue = {
            "name": name,
            "signature_name": "",
            "version": served.installed.release.version,
        }
        signatures: JsonValue = {"signature_def": {DEFAULT_SIGNATURE: signature}}
        return json_response({"model_spec": spec, "metadata": {"signature_def": signatures}})

    async def predict(self, request: Request, *, name: str, version: str | None = None) -> Response:
        """`POST /v1/models/M[/versions/V]:predict`."""
        self._catalog.served(name, version)
        asked = parse_predict(plain_body(request.head, request.body, self._max_body_bytes))
        prediction = await self._inference.answer(name, partial(inputs_of, asked))
        if asked.is_rows:
            return json_response({"predictions": predictions_of(prediction.outputs)})
        return json_response({"outputs": columns_of(prediction.outputs)})


def _status(version: str, state: str) -> JsonValue:
    fine: JsonValue = {"error_code": "OK", "error_message": ""}
    return {"model_version_status": [{"version": version, "state": state, "status": fine}]}


def _described(spec: TensorSpec) -> JsonValue:
    sizes: list[JsonValue] = [{"size": str(size), "name": ""} for size in spec.shape]
    return {
        "dtype": _DTYPES.get(spec.datatype, f"DT_{spec.datatype.value}"),
        "tensor_shape": {"dim": sizes, "unknown_rank": False},
        "name": spec.name,
    }
