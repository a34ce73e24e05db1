"""The list of the operators that can be written, over all modules of this package."""

from edgepack.converter.tflite_writer.operators import (
    activations,
    elementwise,
    linear_models,
    matrices,
    reductions,
    shaping,
    support_vectors,
    trees,
    windows,
)
from edgepack.converter.tflite_writer.write_operator import Operators

OPERATORS: Operators = {
    **activations.OPERATORS,
    **elementwise.OPERATORS,
    **linear_models.OPERATORS,
    **matrices.OPERATORS,
    **reductions.OPERATORS,
    **shaping.OPERATORS,
    **support_vectors.OPERATORS,
    **trees.OPERATORS,
    **windows.OPERATORS,
}
