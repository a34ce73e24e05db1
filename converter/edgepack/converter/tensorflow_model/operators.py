"""Which operators of a graph may run: a SavedModel is a program, and TensorFlow runs what it says.

An operator without state may run unless it reaches files, queues of data or Python; one with state
only if it is on the list. What saves and restores variables may do so for that, and nowhere else.
"""

import re
from collections.abc import Callable, Iterable
from typing import Final

from edgepack.converter.errors import UnsafeModelError, UnsupportedModelError

SAVER_OPERATORS: Final = frozenset(("RestoreV2", "Restore", "RestoreSlice", "ShardedFilename"))
_REACHES_OUT: Final = re.compile(
    r"Dataset|Summary|^Read(er|File)|File|PyFunc|Restore|Save|Vocab|ImmutableConst|TPU|Infeed|"
    r"Outfeed|Debug|Host|Remote"
)
_STATEFUL: Final = frozenset(
    (
        # Variables.
        *("VarHandleOp", "VariableV2", "Variable", "VarIsInitializedOp", "ReadVariableOp"),
        *("AssignVariableOp", "VariableShape", "ResourceGather", "ResourceGatherNd"),
        *("DisableCopyOnRead", "TemporaryVariable", "DestroyTemporaryVariable", "GuaranteeConst"),
        *("AssignAddVariableOp", "AssignSubVariableOp"),
        # Functions and control flow.
        *(
            "StatefulPartitionedCall",
            "If",
            "While",
            "Case",
            "Placeholder",
            "PlaceholderWithDefault",
        ),
        *("Assert", "CheckNumerics", "CheckNumericsV2", "Empty", "DeepCopy", "DeviceIndex"),
        # Tables that are filled with constants.
        *("HashTable", "HashTableV2", "AnonymousHashTable", "MutableHashTableV2"),
        *("InitializeTableV2", "LookupTableFindV2", "LookupTableImportV2", "LookupTableSizeV2"),
        *("LookupTableExportV2", "LookupTableInsertV2"),
        # Lists of tensors, as loops use them.
        *("TensorArrayV3", "TensorArrayReadV3", "TensorArrayWriteV3", "TensorArraySizeV3"),
        *("TensorArrayGatherV3", "TensorArrayScatterV3", "TensorArrayCloseV3"),
        *("TensorArrayConcatV3", "TensorArraySplitV3", "TensorArrayGradV3"),
        *("StackV2", "StackPushV2", "StackPopV2", "StackCloseV2"),
        # Randomness: whether the answers repeat is found by asking twice.
        *("RandomUniform", "RandomUniformInt", "RandomStandardNormal", "TruncatedNormal"),
        *("RandomShuffle", "Multinomial", "StatelessRandomGetAlg", "RngReadAndSkip", "RngSkip"),
        *("StatefulUniform", "StatefulStandardNormalV2", "StatefulUniformInt"),
    )
)


def check_operators(
    operators: Iterable[str], is_stateful: Callable[[str], bool | None], *, saver: bool
) -> None:
    """Refuse operators that reach outside the model.

    Args:
        operators: Names of those that would run.
        is_stateful: Tells whether an operator has state, None if TensorFlow has no such operator.
        saver: They are run to restore variables, not to answer.

    Raises:
        UnsafeModelError: Some reach files, Python or other machines.
        UnsupportedModelError: Some are not TensorFlow's own.
    """
    unknown, unsafe = [], []
    for name in sorted(set(operators)):
        if saver and name in SAVER_OPERATORS:
            continue
        stateful = is_stateful(name)
        if stateful is None:
            unknown.append(name)
        elif _REACHES_OUT.search(name) or (stateful and name not in _STATEFUL):
            unsafe.append(name)
    if unsafe:
        raise UnsafeModelError(
            f"the graph uses {_listed(unsafe)}, which reach files, Python or state outside the "
            "model; it was not run"
        )
    if unknown:
        raise UnsupportedModelError(
            f"the graph uses {_listed(unknown)}, which TensorFlow does not have (custom operators "
            "cannot be converted)"
        )


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(name[:60] for name in names[:5]) + more
