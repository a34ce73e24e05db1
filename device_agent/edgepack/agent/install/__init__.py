"""Installing: decide (`reconcile`), fetch, verify, stage, self-test, switch, probation."""

__all__: list[str] = []
