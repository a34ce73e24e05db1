"""The table of verbs: what --help lists, and where each lives."""

import argparse
import importlib
from collections.abc import Callable

from edgepack.trust.values import dataclass

AddArguments = Callable[[argparse.ArgumentParser], None]
Run = Callable[[argparse.Namespace], int]


@dataclass(frozen=True, slots=True)
class Verb:
    """One verb.

    Attributes:
        name: What people type.
        summary: One line for the list.
        module: Where it lives, under `edgepack.agent.commands`.
        add: Name of the function in it that adds arguments to a parser.
        run: Name of the function in it that does the work and returns the exit code.
    """

    name: str
    summary: str
    module: str
    add: str = "add_arguments"
    run: str = "run"

    def load(self) -> tuple[AddArguments, Run]:
        """Import the module and give its two functions."""
        module = importlib.import_module(f"edgepack.agent.commands.{self.module}")
        return getattr(module, self.add), getattr(module, self.run)


VERBS: tuple[Verb, ...] = (
    Verb("run", "run the agent in the foreground", "foreground"),
    Verb("init", "write agent.toml", "init"),
    Verb("status", "show what runs on this device", "status"),
    Verb("models", "show the models as a table", "status", "add_models", "run_models"),
    Verb("doctor", "look at everything that the agent needs, and say what to mend", "doctor"),
    Verb(
        "install",
        "install a bundle from a file, network or not",
        "decide",
        "add_install",
        "run_install",
    ),
    Verb(
        "rollback",
        "go back to a version that is on disk; stands until the desired state changes",
        "decide",
        "add_rollback",
        "run_rollback",
    ),
    Verb(
        "release",
        "end what holds a model, and let versions that failed be tried again",
        "decide",
        "add_release",
        "run_release",
    ),
    Verb("root", "follow the root of trust by hand, network or not", "root"),
    Verb("audit", "print this device's signed history as JSON lines", "audit"),
    Verb("upgrade", "bring a new version of the agent, from a signed folder of wheels", "upgrade"),
    Verb(
        "settle",
        "end an interrupted upgrade; systemd calls it before every start",
        "upgrade",
        "add_settle",
        "run_settle",
    ),
    Verb(
        "selfcheck",
        "tell whether this version could take over; an upgrade calls it",
        "upgrade",
        "add_selfcheck",
        "run_selfcheck",
    ),
    Verb("uninstall", "delete the agent and its state from this device", "uninstall"),
)
