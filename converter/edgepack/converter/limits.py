"""Limits that the child process sets on itself before it touches a model."""

import contextlib
import sys


def apply_limits(*, memory_bytes: int, cpu_s: int, file_bytes: int) -> None:
    """Bound this process; where the system has no such limits (Windows) nothing happens.

    Args:
        memory_bytes: Address space.
        cpu_s: Processor time of all threads together, until `allow_time` gives more.
        file_bytes: Largest file that it may write.
    """
    try:
        import resource
    except ImportError:
        return
    wanted = (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_FSIZE, file_bytes),
        (resource.RLIMIT_CORE, 0),
    )
    for limit, value in wanted:
        _, hard = resource.getrlimit(limit)
        bound = value if hard == resource.RLIM_INFINITY else min(value, hard)
        # macOS refuses some of them; the time limit of the parent holds all the same.
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(limit, (bound, bound))
    allow_time(cpu_s)
    if sys.platform == "linux":
        _die_with_parent()


def allow_time(cpu_s: int) -> None:
    """Bound what this process may still compute, in seconds of all threads together.

    For each question anew: a search asks one process many.
    """
    try:
        import resource
    except ImportError:
        return
    used = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    bound = int(used) + cpu_s
    if hard != resource.RLIM_INFINITY:
        bound = min(bound, hard)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CPU, (bound, hard))


def _die_with_parent() -> None:
    """Without it, a killed conversion would leave its child computing."""
    import ctypes
    import signal

    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL, 0, 0, 0)
