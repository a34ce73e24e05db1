"""The tool "rank-onnx": which layers of an ONNX file suffer most from static int8."""

from dataclasses import asdict

from edgepack.converter.errors import UnsupportedModelError
from edgepack.converter.onnx_quantizer.rank import rank_layers
from edgepack.converter.quantize_onnx import STATIC, check
from edgepack.converter.tools.tool import ToolJob, ToolResult

_LIMIT_S = 120.0


def run(job: ToolJob) -> ToolResult:
    """Rank as `job.wish` would quantize; `fields["limit_s"]` bounds the time.

    Gives {"layers": [{"name", "sqnr_db"}, …], "not_measured": n}, worst first.
    """
    if job.wish is None or job.wish.scheme != STATIC:
        raise UnsupportedModelError("rank-onnx needs a static wish")
    check(job.wish)
    limit = job.fields.get("limit_s", _LIMIT_S)
    limit_s = float(limit) if isinstance(limit, int | float) else _LIMIT_S
    ranking = rank_layers(job.exported.data, job.feeds, job.wish, limit_s=limit_s)
    return ToolResult(
        fields={
            "layers": [asdict(layer) for layer in ranking.layers],
            "not_measured": ranking.not_measured,
        }
    )
