"""What a candidate's own engine makes of it: a file that answers rightly may still be a bad one."""

from edgepack.converter.draft import Candidate
from edgepack.converter.errors import UnsupportedModelError, WorkerError
from edgepack.converter.search.pool import ToolPool
from edgepack.converter.tools.tool import ToolJob
from edgepack.trust.strict_json import JsonValue


def lint(candidate: Candidate, pool: ToolPool) -> tuple[str | None, tuple[str, ...]]:
    """Look at a candidate as its engine runs it.

    Returns:
        Why it must not be packed, or None; and what is worth knowing of it.
    """
    try:
        found = pool.use(f"lint-{candidate.format}", ToolJob(exported=candidate.exported)).fields
    except (UnsupportedModelError, WorkerError) as exc:
        return str(exc), ()
    missing = _texts(found.get("missing_operators"))
    if missing:
        return f"the engine lacks {', '.join(missing[:5])}", ()
    return None, _texts(found.get("messages"))


def _texts(value: JsonValue) -> tuple[str, ...]:
    return tuple(str(item) for item in value) if isinstance(value, list) else ()
