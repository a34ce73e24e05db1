"""The seam between edgepack and whatever runs a model.

A new engine is one new file in `edgepack.runtime.engines` with a module-level `ENGINE`; the
contract suite in tests/runtime/test_runtime_engine_contract.py says what it must do.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from edgepack.bundle.contract import Variant
from edgepack.runtime.options import SessionOptions
from edgepack.runtime.tensors import Array
from edgepack.trust.values import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """Buffers joined to a session once, for one set of shapes: write, run, read.

    One caller at a time may use a binding.

    Attributes:
        inputs: In the order of the variant's input bindings; to be written before `run`.
        outputs: In the order of the variant's output bindings; valid after `run`.
        run: Runs the model on the buffers.
        failures: What `run` raises when the engine fails: its own exceptions, because wrapping
            them would cost every call a tenth of a microsecond.
    """

    inputs: tuple[Array, ...]
    outputs: tuple[Array, ...]
    run: Callable[[], object]
    failures: tuple[type[Exception], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Abilities:
    """What an engine can run, as far as it tells without a model.

    Attributes:
        opsets: Operator domain → its newest version here.
        operators: "domain::Operator", as variants name them.
    """

    opsets: Mapping[str, int]
    operators: frozenset[str]


class Session(Protocol):
    """One model, loaded. `run` may be called by several threads at once."""

    def run(self, feeds: Sequence[Array]) -> list[Array]:
        """Run once.

        Args:
            feeds: In the order of the variant's input bindings, with the file's dtypes.

        Returns:
            New arrays in the order of the variant's output bindings.

        Raises:
            EngineError: The engine failed.
        """

    def bind(self, inputs: Sequence[Array], outputs: Sequence[Array]) -> Binding | None:
        """Make buffers of the dtypes and shapes of these arrays and join them to the session.

        Returns:
            The binding, or None if this engine or this model has none.

        Raises:
            EngineError: The engine failed.
        """

    def close(self) -> None:
        """Free what the session holds; it is not used afterwards."""


class Engine(Protocol):
    """Something that runs models of one file format."""

    @property
    def name(self) -> str:
        """The name that variants ask for: "onnxruntime"."""

    def versions(self) -> dict[str, str]:
        """Name the installed packages and their versions; importing is not needed for it.

        Raises:
            EngineMissingError: The engine is not installed.
        """

    def prepare(self) -> None:
        """Import the engine's package now instead of when the first model is opened.

        Raises:
            EngineMissingError: The engine is not installed.
        """

    def check(self, variant: Variant) -> None:
        """Tell whether the engine here can run the variant, as far as its requirements say.

        Raises:
            EngineMissingError: The engine is not installed.
            UnsupportedModelError: It is, but the variant needs more.
        """

    def open(
        self, files: Mapping[str, bytes], variant: Variant, options: SessionOptions
    ) -> Session:
        """Load a variant.

        Args:
            files: The variant's files by their path in the bundle, digests already checked.
            variant: What the files are.
            options: How to run.

        Raises:
            EngineMissingError: The engine is not installed.
            UnsupportedModelError: The file does not have the tensors that the variant's
                bindings name, or needs what the engine lacks.
            EngineError: The engine failed to load the file.
        """


@runtime_checkable
class MappingEngine(Engine, Protocol):
    """An engine that can use a variant's files where they lie, without reading them."""

    def maps(self, variant: Variant) -> bool:
        """Whether that saves memory for this variant, if its files lie on disk by themselves."""

    def open_on_disk(self, path: Path, variant: Variant, options: SessionOptions) -> Session:
        """Load a variant from disk.

        Args:
            path: Its first file; the others lie in the same folder, by the names that the first
                knows them by. Digests are already checked, and nobody changes these files.
            variant: What the files are.
            options: How to run.

        Raises:
            EngineError: As `open`.
        """


@runtime_checkable
class TellingEngine(Engine, Protocol):
    """An engine that tells what it can run."""

    def abilities(self) -> Abilities:
        """Tell it; imports the engine's package.

        Raises:
            EngineMissingError: The engine is not installed.
            EngineError: This build does not tell.
        """
