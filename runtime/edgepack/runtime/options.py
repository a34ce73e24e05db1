"""How a session runs on its device."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionOptions:
    """Settings of an engine's session; the defaults are for a small device that does other work.

    benchmarks/results/session_settings.json has the measurements behind them.

    Attributes:
        threads: Threads of one inference, the caller's included. For models up to about a
            millisecond a second thread without spinning makes an inference slower, not faster.
        spinning: Let idle threads burn their core while they wait for work. With two threads it
            took a third off a model of a millisecond and six times the processor time, most of
            it between the inferences; without effect for one thread.
        arena: Keep freed memory for the next inference. On or off made no difference to the
            models that were measured.
    """

    threads: int = 1
    spinning: bool = False
    arena: bool = True

    def __post_init__(self) -> None:
        if self.threads < 1:
            raise ValueError(f"threads must be at least 1, got {self.threads}")
