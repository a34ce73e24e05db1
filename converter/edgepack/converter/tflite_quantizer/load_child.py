"""Loads a TFLite file from the input and runs it once: `… load_child default|reference`.

A process of its own, because a kernel that does not fit a file may end the process. Prints what
went wrong and ends with 1.
"""

import sys


def main() -> int:
    """Load and run."""
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    resolvers = {"default": OpResolverType.AUTO, "reference": OpResolverType.BUILTIN_REF}
    data = sys.stdin.buffer.read()
    try:
        interpreter = Interpreter(
            model_content=data,
            experimental_op_resolver_type=resolvers[sys.argv[1]],
            num_threads=1,
        )
        interpreter.allocate_tensors()
        for item in interpreter.get_input_details():
            interpreter.set_tensor(item["index"], np.zeros(item["shape"], item["dtype"]))
        interpreter.invoke()
    except (RuntimeError, ValueError) as exc:
        sys.stdout.write(" ".join(str(exc).split())[:2000])
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
