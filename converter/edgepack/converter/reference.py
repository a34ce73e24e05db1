"""The drift reference: what the inputs looked like when the model was converted."""

from edgepack.converter.match import narrow
from edgepack.converter.prove import ProvenModel
from edgepack.monitor.reference import build_reference


def render_reference(proven: ProvenModel) -> bytes:
    """Build the reference from all rows of the data."""
    specs = proven.draft.watched
    return build_reference(
        narrow(specs, proven.inputs),
        feature_names={spec.name: spec.feature_names for spec in specs},
    )
