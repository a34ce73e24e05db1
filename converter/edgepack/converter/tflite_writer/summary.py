"""What is in a TFLite file, for the writer's own report of it."""

from ai_edge_litert import schema_py_generated as schema

from edgepack.converter.sources.source import FileSummary

_WEIGHTED = frozenset({"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "BATCH_MATMUL"})


def summarise(data: bytes) -> FileSummary:
    """Count what is in a file."""
    names = {v: k for k, v in vars(schema.BuiltinOperator).items() if isinstance(v, int)}
    model = schema.ModelT.InitFromPackedBuf(bytearray(data), 0)
    codes = [(names[item.builtinCode], item.version) for item in model.operatorCodes]
    main = model.subgraphs[0]
    weights = 0
    for operation in main.operators:
        if codes[operation.opcodeIndex][0] in _WEIGHTED:
            for place in operation.inputs[:2]:
                tensor = main.tensors[place]
                if model.buffers[tensor.buffer].data is not None:
                    size = 1
                    for length in tensor.shape:
                        size *= int(length)
                    weights += size
    return FileSummary(
        opsets=dict(sorted(codes)),
        operators=tuple(sorted(f"tflite::{name}" for name, _ in codes)),
        weights=weights,
        ir_version=model.version,
    )
