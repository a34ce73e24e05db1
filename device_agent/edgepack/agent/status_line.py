"""A model as one line for the person at the device."""

from collections.abc import Iterator
from typing import Any


def line_of(model: dict[str, Any], *, running: bool = True) -> str:
    """What answers, where the last install stands, and what else there is to know.

    Args:
        model: A `ReportedModel`, as JSON has it.
        running: Whether an agent runs; without one nothing answers, whatever is installed.
    """
    active = model.get("active")
    version = f"{active['version']} ({model.get('variant')})" if active else "nothing"
    serving = f"{'serving' if running else 'installed'} {version}"
    why = f": {model['reason']}: {model.get('detail', '')}" if model.get("reason") else ""
    note = f" ({model['detail']})" if model.get("detail") and not model.get("reason") else ""
    held = f", held ({model.get('hold')} by hand)" if model.get("held") else ""
    more = "".join(_besides(model))
    return f"{model['name']}: {serving}, {model['phase']}{held}{why}{note}{more}"


def _besides(model: dict[str, Any]) -> Iterator[str]:
    offered, shadow = model.get("offered"), model.get("shadow")
    if offered:
        yield f"; offered {offered['version']} ({offered['size_bytes'] / 1e6:.1f} MB)"
    if shadow:
        active = shadow.get("active")
        yield f"; shadow {active['version'] if active else 'none'}, {shadow['phase']}"
        if shadow.get("reason"):
            yield f": {shadow['reason']}: {shadow.get('detail', '')}"
        elif shadow.get("requests"):
            yield f", {shadow['requests']} compared"
            disagreement = shadow.get("figures", {}).get("disagreement")
            if disagreement is not None:
                yield f", {disagreement:.2%} disagree"
