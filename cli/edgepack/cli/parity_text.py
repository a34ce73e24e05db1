"""How a variant compared with the original model, in words; for convert and inspect."""

from edgepack.bundle.contract import Parity

_SAID_BY_ZERO = frozenset({"nonfinite_mismatches", "rows_outside"})
_SAID_BEFORE = frozenset({"drop"})  # in the reason of whoever judged
_ORIGINAL = "_original"
_LOW, _HIGH = "_low", "_high"


def verdict(parity: Parity) -> str:
    """The metric that decided, and its bound."""
    interval = _interval(parity, parity.metric)
    return f"{parity.metric} {parity.value:.6g}{interval} (bound {parity.bound:.6g})"


def figures(parity: Parity) -> str:
    """The other figures, beside the original model's where there is one."""
    parts = []
    for name, value in sorted(parity.figures.items()):
        if name.endswith((_ORIGINAL, _LOW, _HIGH)) or name in _SAID_BEFORE:
            continue
        if name in _SAID_BY_ZERO and value == 0:
            continue
        original = parity.figures.get(f"{name}{_ORIGINAL}")
        beside = "" if original is None else f" (original {original:.4g})"
        parts.append(f"{name.replace('_', ' ')} {value:.4g}{_interval(parity, name)}{beside}")
    return ", ".join(parts)


def _interval(parity: Parity, name: str) -> str:
    low, high = parity.figures.get(f"{name}{_LOW}"), parity.figures.get(f"{name}{_HIGH}")
    return "" if low is None or high is None else f" [{low:.4g}, {high:.4g}]"
