"""How many steps a model's recurrent layers take: exporters unroll them, some of them slowly."""

from collections.abc import Sequence
from typing import Any

import torch

from edgepack.converter.torch_model.inputs import Input


def recurrent_steps(module: Any, inputs: Sequence[Input]) -> int:  # noqa: ANN401  (torch's)
    """The steps of all layers together if the sequence is the longest it can be; 0 without any."""
    layers = 0
    for part in module.modules():
        if isinstance(part, torch.nn.RNNBase):
            layers += part.num_layers * (2 if part.bidirectional else 1)
        graph = getattr(part, "graph", None)  # a program's or TorchScript's
        nodes = [] if graph is None else graph.nodes
        nodes = nodes() if callable(nodes) else nodes
        layers += sum(_is_recurrent(node) for node in nodes)
    longest = max((size for item in inputs for size in item.shape[:-1]), default=1)
    return layers * longest


def _is_recurrent(node: Any) -> bool:  # noqa: ANN401
    name = node.kind() if hasattr(node, "kind") else str(getattr(node, "target", ""))
    operator = name.replace("aten::", "aten.").removeprefix("aten.").partition(".")[0]
    return operator in ("lstm", "gru", "rnn_tanh", "rnn_relu")
