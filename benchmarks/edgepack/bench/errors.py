"""The errors of `edgepack.bench`.

EdgepackError
└── BenchError               nothing could be measured
    └── BenchTimeoutError    a variant took longer than it was given
"""

from edgepack.trust.errors import EdgepackError


class BenchError(EdgepackError):
    """Nothing could be measured."""

    exit_code = 3


class BenchTimeoutError(BenchError):
    """Measuring one variant took longer than it was given."""
