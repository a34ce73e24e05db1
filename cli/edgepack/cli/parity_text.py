"""How a variant compared with the original model, in words; for convert and inspect."""

from edgepack.bundle.contract import Parity

_SAID_BY_ZERO = frozenset({"nonfinite_mismatches", "rows_outside"})
_ORIGINAL = "_original"


def verdict(parity: Parity) -> str:
    """The metric that decided, and its bound."""
    return f"{parity.metric} {parity.value:.6g} (bound {parity.bound:.6g})"


def figures(parity: Parity) -> str:
    """The other figures, beside the original model's where there is one."""
    parts = []
    for name, value in sorted(parity.figures.items()):
        if name.endswith(_ORIGINAL) or (name in _SAID_BY_ZERO and value == 0):
            continue
        original = parity.figures.get(f"{name}{_ORIGINAL}")
        beside = "" if original is None else f" (original {original:.4g})"
        parts.append(f"{name.replace('_', ' ')} {value:.4g}{beside}")
    return ", ".join(parts)
