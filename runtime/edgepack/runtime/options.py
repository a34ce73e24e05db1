"""How a session runs on its device."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionOptions:
    """Settings of an engine's session; the defaults are for a small device that does other work.

    Attributes:
        threads: Threads of one inference, the caller's included. One is fastest for models
            below about a millisecond and leaves the other cores alone.
        spinning: Let idle threads burn their core while they wait for work. It shortens a burst
            of large inferences and costs a core between them; without effect for one thread.
        arena: Keep freed memory for the next inference. Off, a session holds less memory and
            inferences with large tensors take longer.
    """

    threads: int = 1
    spinning: bool = False
    arena: bool = True

    def __post_init__(self) -> None:
        if self.threads < 1:
            raise ValueError(f"threads must be at least 1, got {self.threads}")
