"""Limits that the child process sets on itself before it touches a model."""

import contextlib
import sys


def apply_limits(*, memory_bytes: int, cpu_s: int, file_bytes: int) -> None:
    """Bound this process; where the system has no such limits (Windows) nothing happens.

    Args:
        memory_bytes: Address space.
        cpu_s: Processor time of all threads together.
        file_bytes: Largest file that it may write.
    """
    try:
        import resource
    except ImportError:
        return
    wanted = (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_CPU, cpu_s),
        (resource.RLIMIT_FSIZE, file_bytes),
        (resource.RLIMIT_CORE, 0),
    )
    for limit, value in wanted:
        _, hard = resource.getrlimit(limit)
        bound = value if hard == resource.RLIM_INFINITY else min(value, hard)
        # macOS refuses some of them; the time limit of the parent holds all the same.
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(limit, (bound, bound))
    if sys.platform == "linux":
        _die_with_parent()


def _die_with_parent() -> None:
    """Without it, a killed conversion would leave its child computing."""
    import ctypes
    import signal

    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL, 0, 0, 0)
