"""The tool "rank-tflite": which layers of a TFLite file suffer most from static int8."""

from dataclasses import asdict
from typing import Final

from edgepack.converter.errors import UnsupportedModelError
from edgepack.converter.tflite_quantizer.quantize import STATIC
from edgepack.converter.tflite_quantizer.rank import rank_layers
from edgepack.converter.tools.tool import ToolJob, ToolResult

_LIMIT_S: Final = 120.0


def run(job: ToolJob) -> ToolResult:
    """Rank as `job.wish` would quantize; `fields["limit_s"]` bounds the time.

    Gives {"layers": [{"name", "sqnr_db"}, …], "not_measured": n}, worst first.
    """
    if job.wish is None or job.wish.scheme != STATIC:
        raise UnsupportedModelError("rank-tflite needs a static wish")
    limit = job.fields.get("limit_s", _LIMIT_S)
    limit_s = float(limit) if isinstance(limit, int | float) else _LIMIT_S
    ranking = rank_layers(job.exported.data, job.feeds, job.wish, limit_s=limit_s)
    return ToolResult(
        fields={
            "layers": [asdict(layer) for layer in ranking.layers],
            "not_measured": ranking.not_measured,
        }
    )
