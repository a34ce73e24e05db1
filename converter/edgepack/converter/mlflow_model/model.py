"""A folder's model behind the `LoadedModel` Protocol: the flavour's own, told by the signature."""

from collections.abc import Mapping
from dataclasses import dataclass

from edgepack.bundle.contract import Task
from edgepack.converter.sources.source import Exported, ExportWish, LoadedModel, ModelFacts
from edgepack.runtime.tensors import Array


@dataclass(frozen=True, slots=True, kw_only=True)
class MlflowModel:
    """The model inside, with facts that the signature adds to.

    Attributes:
        model: As its own source loaded it.
        facts: What is known of it.
    """

    model: LoadedModel
    facts: ModelFacts

    def run(self, task: Task, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Answer as the original does: see `LoadedModel`."""
        return self.model.run(task, inputs)

    def export(self, wish: ExportWish) -> Exported:
        """Export: see `LoadedModel`."""
        return self.model.export(wish)
