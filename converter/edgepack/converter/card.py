"""The model card: what a person reads before installing a model. Pure."""

from collections.abc import Sequence

from edgepack.bundle.contract import Contract, TensorSpec
from edgepack.converter.report import Rows, VariantReport
from edgepack.converter.sources.source import ModelFacts
from edgepack.runtime.dataset import Dataset

PATH = "README.md"
_MAX_NAMES = 40


def render_card(
    contract: Contract,
    *,
    facts: ModelFacts,
    dataset: Dataset,
    rows: Rows,
    variants: Sequence[VariantReport],
    messages: Sequence[str],
) -> bytes:
    """Write the model card as Markdown."""
    parts = [
        f"# {contract.name} {contract.version}",
        f"{facts.framework}: {facts.description}. Task: {contract.task.value}.",
        "## Inputs\n\n" + "\n".join(_tensor(spec) for spec in contract.inputs),
        "## Outputs\n\n" + "\n".join(_tensor(spec) for spec in contract.outputs),
    ]
    if contract.class_names:
        parts.append(f"Classes: {_listed(contract.class_names)}.")
    parts += [
        "## Parity with the original\n\n"
        f"Measured on {rows.held_out} rows that calibration never saw.\n\n{_table(variants)}",
        "## Data\n\n"
        f"{dataset.format}, {rows.total} rows, `{dataset.digest}`. {rows.calibration} rows set the "
        f"ranges of int8, {rows.held_out} were held out and compared, {rows.golden} of those are "
        "packed as golden samples with the original model's answers.",
        "## Limits\n\n" + "\n".join(f"- {line}" for line in (*_limits(contract), *messages)),
    ]
    return ("\n\n".join(parts) + "\n").encode()


def _limits(contract: Contract) -> list[str]:
    takes_nan = any(spec.nonfinite.value == "nan" for spec in contract.inputs)
    return [
        "Which of these rows the model was trained on is not known here: parity is with the "
        "original model, and accuracy on rows that it was trained on flatters it.",
        "NaN is a missing value." if takes_nan else "NaN and infinity are refused.",
        "Input ranges are those of the data; values outside them are answered, and unproven.",
    ]


def _tensor(spec: TensorSpec) -> str:
    shape = ", ".join("N" if size == -1 else str(size) for size in spec.shape)
    line = f"- `{spec.name}`: {spec.datatype.value} ({shape})"
    if spec.minimum is not None and spec.maximum is not None:
        line += f", {spec.minimum:g} to {spec.maximum:g} in the data"
    if spec.feature_names and spec.feature_names != (spec.name,):
        line += f"; columns: {_listed(spec.feature_names)}"
    return line


def _table(variants: Sequence[VariantReport]) -> str:
    lines = [
        "| variant | size in bytes | metric | value | bound | packed |",
        "|---|---|---|---|---|---|",
    ]
    for variant in variants:
        parity = variant.parity
        size = "" if variant.size_bytes is None else str(variant.size_bytes)
        figures = ("", "", "")
        if parity is not None:
            figures = (parity.metric, f"{parity.value:.6g}", f"{parity.bound:.6g}")
        packed = "yes" if variant.kept else f"no: {variant.reason}"
        lines.append(f"| {variant.name} | {size} | {' | '.join(figures)} | {packed} |")
    more = [
        f"\n{variant.name}: "
        + ", ".join(f"{name} {value:.6g}" for name, value in sorted(variant.parity.figures.items()))
        for variant in variants
        if variant.kept and variant.parity is not None
    ]
    return "\n".join(lines + more)


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _MAX_NAMES
    text = ", ".join(f"`{name}`" for name in names[:_MAX_NAMES])
    return f"{text} and {more} more" if more > 0 else text
