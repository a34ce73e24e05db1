"""The table of commands: what --help lists, and where each lives.

A command's module is imported when the command is called, so that `edgepack --help` stays quick
and a device without scikit-learn can still `edgepack predict`.
"""

import argparse
import importlib
from collections.abc import Callable
from dataclasses import dataclass

AddArguments = Callable[[argparse.ArgumentParser], None]
Run = Callable[[argparse.Namespace], int]


@dataclass(frozen=True, slots=True)
class Command:
    """One command.

    Attributes:
        name: What people type.
        summary: One line for the list.
        module: Where it lives, under `edgepack.cli`.
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
        module = importlib.import_module(f"edgepack.cli.{self.module}")
        return getattr(module, self.add), getattr(module, self.run)


def add_verbose(parser: argparse.ArgumentParser) -> None:
    """Add -v to a command, or to a verb of one."""
    parser.add_argument(
        "-v",
        "--verbose",
        action="store_true",
        default=argparse.SUPPRESS,  # else it would undo `edgepack -v COMMAND`
        help="tracebacks and a debug log",
    )


COMMANDS: tuple[Command, ...] = (
    Command("demo", "see the whole way on this machine in a minute", "demo"),
    Command("keygen", "make root, release and deploy keys", "keys"),
    Command("root", "show, rotate, sign and publish the root of trust", "root"),
    Command("convert", "turn a trained model into a signed bundle", "convert"),
    Command("inspect", "show what a bundle holds", "bundles", "add_inspect", "run_inspect"),
    Command("verify", "check a bundle's signature", "bundles", "add_verify", "run_verify"),
    Command("sign", "add a signature to a bundle", "bundles", "add_sign", "run_sign"),
    Command("extract", "write a bundle's files", "bundles", "add_extract", "run_extract"),
    Command("import", "make a bundle of an OCI layout", "bundles", "add_import", "run_import"),
    Command("push", "put a bundle into a registry", "registry", "add_push", "run_push"),
    Command("pull", "get a bundle from a registry", "registry", "add_pull", "run_pull"),
    Command("predict", "score a file of rows with a bundle", "predict"),
    Command("bench", "measure a bundle on this machine", "bench"),
    Command("report", "render a bundle's evidence as one HTML page", "report"),
    Command("broker", "run an MQTT broker for a first try", "broker"),
    Command("broker-acl", "write mosquitto's access rules", "broker_acl"),
    Command("setup", "put the agent on machines, over SSH", "setup"),
    Command("deploy", "send a bundle to devices", "fleet", "add_deploy", "run_deploy"),
    Command("remove", "take a model away from devices", "fleet", "add_remove", "run_remove"),
    Command("rollback", "send devices back a version", "fleet", "add_rollback", "run_rollback"),
    Command("wheelhouse", "sign the wheels of a new agent for offline devices", "wheelhouse"),
    Command("conformance", "check that a server speaks its protocol", "conformance"),
    Command("audit", "prove what ran on a device, and when", "audit"),
    Command("watch", "show devices and models live", "watch"),
)
