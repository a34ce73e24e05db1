"""docs/coverage.md: what came of each estimator, as the test found it."""

import math
import re
from collections.abc import Iterator, Sequence

from coverage_walk import Entry, Outcome

_WITHOUT_TABLE = {
    "CountVectorizer": "takes texts, no table: converts in a model of words (analyzer='word')",
    "DictVectorizer": "takes dictionaries",
    "FeatureHasher": "takes dictionaries or text",
    "GraphicalLasso": "estimates a covariance; it has neither predict nor transform",
    "HashingVectorizer": "takes texts, no table: converts in a model of words (n_features=2**16)",
    "LabelBinarizer": "takes labels",
    "LabelEncoder": "takes labels",
    "MultiLabelBinarizer": "takes labels",
    "PatchExtractor": "takes images",
    "TfidfVectorizer": "takes texts, no table: converts in a model of words (analyzer='word')",
}
_HEAD = """\
# scikit-learn: what converts

Made by `tests/converter/test_converter_coverage_walk.py`, which fails when this file is not what
really ran. Every estimator that `sklearn.utils.all_estimators` lists is fitted on rows of breast
cancer (classifiers, clusterers, outlier detectors, transformers) or diabetes (regressors),
exported by edgepack, and compared in onnxruntime with itself: on rows that the fit never saw,
and, for all that hold trees, on rows with one value exactly on a split point, or one float32 or
float64 number beside it.

The figures are the largest difference of any output, relative to the output's largest value or 1,
whichever is larger, rounded up to a power of ten; `exact` is below 1e-12. Labels are all equal.
`float32` compares inputs that float32 holds; where it says *needs float64*, `edgepack convert`
makes a variant with float64 inputs.

"""
_FIGURE = re.compile(r"\b(1e-\d\d|exact)\b")
_DECADES_APART = 1  # processors differ in the last bits, and so in the next power of ten
_EXACT = -12


def render(entries: Sequence[Entry]) -> str:
    """The page."""
    good = [entry for entry in entries if _converts(entry)]
    rest = [entry for entry in entries if not _converts(entry)]
    lines = [
        _HEAD + f"{len(good)} convert, {len(rest)} do not.",
        "",
        "## Converts",
        "",
        "| estimator | task | float32 | float64 |",
        "|---|---|---|---|",
        *(_row(entry) for entry in good),
        "",
        "## Does not convert",
        "",
        "| estimator | why |",
        "|---|---|",
        *(f"| {entry.name} | {_why(entry)} |" for entry in rest),
        "",
    ]
    return "\n".join(lines)


def same_page(expected: str, actual: str) -> bool:
    """Tell whether two pages say the same, figures within a power of ten."""
    if _FIGURE.sub("#", expected) != _FIGURE.sub("#", actual):
        return False
    pairs = zip(_exponents(expected), _exponents(actual), strict=True)
    return all(abs(one - other) <= _DECADES_APART for one, other in pairs)


def _exponents(page: str) -> Iterator[int]:
    for found in _FIGURE.findall(page):
        yield _EXACT if found == "exact" else int(found[2:])


def _converts(entry: Entry) -> bool:
    return entry.fp32.difference is not None or entry.fp64.difference is not None


def _row(entry: Entry) -> str:
    return f"| {entry.name} | {entry.task} | {_shown(entry.fp32)} | {_shown(entry.fp64)} |"


def _shown(outcome: Outcome) -> str:
    if outcome.difference is None:
        return "needs float64" if outcome.reason.startswith("differs") else "no"
    if outcome.difference <= 10**_EXACT:
        return "exact"
    return f"1e-{-math.ceil(math.log10(outcome.difference)):02d}"


def _why(entry: Entry) -> str:
    known = _WITHOUT_TABLE.get(entry.name)
    reason = entry.fp32.reason if known is None else known
    return reason.removeprefix(f"{entry.name} ").removeprefix(f"{entry.name}.")
