"""Which rows do what. Pure: the same file is always split the same way.

Rows that set the ranges of int8 (calibration) are never compared; golden samples are some of the
held-out rows. Which rows the model was trained on cannot be known from here.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgepack.converter.errors import UnfitDataError
from edgepack.converter.report import Rows

LEAST_ROWS = 64
MOST_GOLDEN = 256
MOST_CALIBRATION = 512
MOST_HELD_OUT = 10_000
_LEAST_CALIBRATION = 16
_GOLDEN_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Split:
    """Row numbers.

    Attributes:
        calibration: int64 (C,); empty if there are too few rows for it.
        held_out: int64 (H,), H >= 64.
        golden: Positions in `held_out`, int64 (G,), 64 <= G <= 256.
    """

    calibration: NDArray[np.int64]
    held_out: NDArray[np.int64]
    golden: NDArray[np.int64]

    def counts(self, total: int) -> Rows:
        """The numbers of rows, of so many in the file."""
        return Rows(
            total=total,
            calibration=len(self.calibration),
            held_out=len(self.held_out),
            golden=len(self.golden),
        )


def split_rows(
    rows: int,
    *,
    digest: str,
    row_bytes: int,
    calibration: int | None = None,
    seed: int | None = None,
) -> Split:
    """Split a file's rows.

    Args:
        rows: In the file.
        digest: "sha256:<hex>" of the file: seeds the shuffle.
        row_bytes: Size of one row's inputs and outputs; bounds the number of golden samples.
        calibration: How many rows set ranges; by default a quarter, at most 512.
        seed: Another shuffle.

    Raises:
        UnfitDataError: There are fewer than 64 rows.
    """
    if rows < LEAST_ROWS:
        raise UnfitDataError(
            f"data must have at least {LEAST_ROWS} rows for the golden samples, got {rows}"
        )
    own = int(digest.rpartition(":")[2][:16], 16)
    lots = own if seed is None else np.random.SeedSequence([own, seed])
    order = np.random.Generator(np.random.PCG64(lots)).permutation(rows).astype(np.int64)
    spare = rows - LEAST_ROWS
    if calibration is None:
        calibration = min(MOST_CALIBRATION, rows // 4, spare)
        if calibration < _LEAST_CALIBRATION:
            calibration = 0
    elif calibration > spare:
        raise UnfitDataError(
            f"{calibration} rows for calibration and {LEAST_ROWS} to compare were asked for, the "
            f"data has {rows}"
        )
    held_out = order[calibration : calibration + MOST_HELD_OUT]
    affordable = max(LEAST_ROWS, _GOLDEN_BYTES // max(row_bytes, 1))
    golden = np.arange(min(MOST_GOLDEN, len(held_out), affordable), dtype=np.int64)
    return Split(calibration=order[:calibration], held_out=held_out, golden=golden)
