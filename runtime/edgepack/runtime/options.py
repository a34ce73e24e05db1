"""How a session runs on its device."""

from edgepack.trust.values import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionOptions:
    """Settings of an engine's session; the defaults are for a small device that does other work.

    benchmarks/results/session_settings.json and mapped_weights.json have the measurements behind
    them.

    Attributes:
        threads: Threads of one inference, the caller's included. For models up to about a
            millisecond a second thread without spinning makes an inference slower, not faster.
        spinning: Let idle threads burn their core while they wait for work. With two threads it
            took a third off a model of a millisecond and six times the processor time, most of
            it between the inferences; without effect for one thread.
        arena: Keep freed memory for the next inference. On or off made no difference to the
            models that were measured.
        repack: Copy weights into the layout that the kernels like best. Of a model of 100 MB on
            disk, that took 100 MB of memory and ten times the time to load; an inference ran up
            to a third faster where nothing else used the memory. By default (None) weights in a
            file of their own of 32 MiB and more are used as they lie, all others are repacked.
    """

    threads: int = 1
    spinning: bool = False
    arena: bool = True
    repack: bool | None = None

    def __post_init__(self) -> None:
        if self.threads < 1:
            raise ValueError(f"threads must be at least 1, got {self.threads}")
