"""Prints how many tests passed, failed and were skipped, from pytest's JUnit files."""

import sys
from xml.etree import ElementTree


def main() -> int:
    """Add the files up; 1 if a test failed or none ran."""
    tests = failed = skipped = 0
    for path in sys.argv[1:]:
        for suite in ElementTree.parse(path).getroot().iter("testsuite"):  # noqa: S314 (our own)
            tests += int(suite.get("tests", 0))
            failed += int(suite.get("failures", 0)) + int(suite.get("errors", 0))
            skipped += int(suite.get("skipped", 0))
    passed = tests - failed - skipped
    print(f"{passed} passed, {failed} failed, {skipped} skipped")  # noqa: T201
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
