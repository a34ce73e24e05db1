"""A file that is something else altogether."""

import pytest

from edgepack.bundle import BundleError, open_bundle


def test_another_kind_of_file_is_called_so(tmp_path):
    """Whoever names the CSV instead of the bundle reads that, not where a tar header is wrong."""
    path = tmp_path / "rows.csv"
    path.write_text("a,b\n1,2\n" * 200)
    with pytest.raises(BundleError, match=r"rows\.csv is not an edgepack bundle"):
        open_bundle(path)
