"""Recurrent layers of Keras as one operator each, while a model is exported.

On a processor Keras writes out every step of an LSTM or GRU, and exporters take minutes for a few
hundred of them. torch has both as one operator, and Keras itself uses it on a graphics card.
Nothing here computes what an export is compared with: those answers are Keras's own.
"""

import importlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import torch

from edgepack.converter.torch_model.inputs import Input

Step = Callable[[Any], Any]
# Not by `from … import rnn`: its package has a function of that name.
rnn: Any = importlib.import_module("keras.src.backend.torch.rnn")


@contextmanager
def one_operator() -> Iterator[None]:
    """Within it, LSTM and GRU layers with their usual activations are torch's own operators."""
    kept = rnn._fallback_lstm, rnn._fallback_gru
    rnn._fallback_lstm, rnn._fallback_gru = _lstm(kept[0]), _gru(kept[1])
    try:
        yield
    finally:
        rnn._fallback_lstm, rnn._fallback_gru = kept


def recurrent_steps(model: Any, inputs: Sequence[Input]) -> int:  # noqa: ANN401  (Keras's)
    """The steps of all recurrent layers together, at the most; 0 without any."""
    kinds = (keras.layers.LSTM, keras.layers.GRU, keras.layers.SimpleRNN, keras.layers.RNN)
    count = sum(isinstance(layer, kinds) for layer in model._flatten_layers(include_self=False))
    return count * max((size for item in inputs for size in item.shape[:-1]), default=1)


def _is_usual(activation: Step, recurrent_activation: Step) -> bool:
    return activation is keras.activations.tanh and (
        recurrent_activation is keras.activations.sigmoid
    )


def _lstm(plain: Callable[..., Any]) -> Callable[..., Any]:
    def lstm(  # noqa: PLR0917  (Keras's own signature)
        inputs: Any,  # noqa: ANN401
        state_h: Any,  # noqa: ANN401
        state_c: Any,  # noqa: ANN401
        kernel: Any,  # noqa: ANN401
        recurrent_kernel: Any,  # noqa: ANN401
        bias: Any,  # noqa: ANN401
        activation: Step,
        recurrent_activation: Step,
        return_sequences: bool,
        batch_first: bool,
    ) -> Any:  # noqa: ANN401
        if not batch_first or not _is_usual(activation, recurrent_activation):
            return plain(
                inputs,
                state_h,
                state_c,
                kernel,
                recurrent_kernel,
                bias,
                activation,
                recurrent_activation,
                return_sequences,
                batch_first,
            )
        bias = torch.zeros(kernel.shape[1], dtype=kernel.dtype) if bias is None else bias
        states = (state_h, state_c)
        return rnn._cudnn_lstm(
            inputs, *states, kernel, recurrent_kernel, bias, return_sequences, inputs.device
        )

    return lstm


def _gru(plain: Callable[..., Any]) -> Callable[..., Any]:
    def gru(  # noqa: PLR0917  (Keras's own signature)
        inputs: Any,  # noqa: ANN401
        state: Any,  # noqa: ANN401
        kernel: Any,  # noqa: ANN401
        recurrent_kernel: Any,  # noqa: ANN401
        bias: Any,  # noqa: ANN401
        activation: Step,
        recurrent_activation: Step,
        return_sequences: bool,
    ) -> Any:  # noqa: ANN401
        if not _is_usual(activation, recurrent_activation):
            return plain(
                inputs,
                state,
                kernel,
                recurrent_kernel,
                bias,
                activation,
                recurrent_activation,
                return_sequences,
            )
        bias = torch.zeros(2, kernel.shape[1], dtype=kernel.dtype) if bias is None else bias
        return rnn._cudnn_gru(
            inputs, state, kernel, recurrent_kernel, bias, return_sequences, inputs.device
        )

    return gru
