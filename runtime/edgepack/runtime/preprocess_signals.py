"""Signals cut to a window, and their log-mel spectrograms."""

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from edgepack.bundle.pre_steps import (
    Dct,
    DctNorm,
    Logarithm,
    LogMel,
    MelNorm,
    MelScale,
    Place,
    Triangles,
    Window,
)
from edgepack.runtime.errors import InputError
from edgepack.runtime.tensors import Array

BLOCK_VALUES: Final = 1 << 20  # of the frames that are transformed at once: 8 MB
_Floats = npt.NDArray[np.float64]

# Slaney, Auditory Toolbox (1998): linear to 1000 Hz, then 27 steps for each factor of 6.4.
_SLANEY_HZ_PER_MEL = 200 / 3
_SLANEY_BREAK_HZ = 1000.0
_SLANEY_BREAK_MEL = _SLANEY_BREAK_HZ / _SLANEY_HZ_PER_MEL
_SLANEY_LOG_STEP = np.log(6.4) / 27


def window(signals: Array, step: Window) -> Array:
    """Cut or fill up signals (N, T) or (N, T, C) along T, and cut them into frames if wanted."""
    length = signals.shape[1]
    slack = abs(length - step.length)
    begin = {Place.START: 0, Place.CENTER: slack // 2, Place.END: slack}[step.place]
    if length >= step.length:
        signals = signals[:, begin : begin + step.length]
    else:
        filled = np.full(
            (signals.shape[0], step.length, *signals.shape[2:]), step.value, signals.dtype
        )
        filled[:, begin : begin + length] = signals
        signals = filled
    if step.frame is None or step.hop is None:
        return signals
    return _frames(signals, step.frame, step.hop)


def log_mel(step: LogMel) -> Callable[[Array], Array]:
    """Make the function from signals (N, T) to spectrograms (N, frames, mels), float32.

    Frames are weighted with the periodic Hann window and transformed (all as `tf.signal.stft`
    does); the filters are those of `mel_filters`.
    """
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(step.frame) / step.frame)
    starts, weights = _bands(mel_filters(step))
    logarithms: dict[Logarithm, Callable[[_Floats], _Floats]] = {
        Logarithm.LN: np.log,
        Logarithm.LOG10: np.log10,
        Logarithm.DB: lambda energy: 20 / step.power * np.log10(energy),
    }
    logarithm = logarithms[step.log]

    def apply(signals: Array) -> Array:
        if signals.shape[1] < step.frame:
            raise InputError(
                f"a signal must have at least {step.frame} samples, got {signals.shape[1]}"
            )
        frames = _frames(signals, step.frame, step.hop)
        made = np.empty((*frames.shape[:2], step.mels), np.float32)
        block = max(1, BLOCK_VALUES // (step.fft_length * max(1, len(frames))))
        for begin in range(0, frames.shape[1], block):
            made[:, begin : begin + block] = spectrogram(frames[:, begin : begin + block])
        return made

    def spectrogram(frames: Array) -> Array:
        spectrum = np.fft.rfft(frames * hann, n=step.fft_length, axis=-1)
        power = np.square(spectrum.real) + np.square(spectrum.imag)
        energy = _filtered(power if step.power == 2 else np.sqrt(power), starts, weights)
        return logarithm(np.maximum(energy, step.floor) + step.offset)

    return apply


def dct(values: Array, step: Dct) -> Array:
    """The first coefficients of the cosine transform (type II) along the last axis.

    Ahmed, Natarajan and Rao (1974): sqrt(2 / n) sum of x_i cos(pi k (i + 1/2) / n), the first one
    divided by sqrt(2) unless the norm is HTK's. Summed in one order on every machine, in float64.

    >>> dct(np.array([[1.0, 1.0, 1.0, 1.0]]), Dct(input="x", keep=2)).round(6).tolist()
    [[2.0, 0.0]]
    """
    size = values.shape[-1]
    wave = np.cos(np.pi * np.arange(step.keep) * (np.arange(size)[:, None] + 0.5) / size)
    wave *= np.sqrt(2 / size)
    if step.norm is DctNorm.ORTHO:
        wave[:, 0] /= np.sqrt(2)
    total = np.zeros((*values.shape[:-1], step.keep))
    for index, row in enumerate(wave):
        total += values[..., index, None] * row
    return np.asarray(total, np.float64 if values.dtype == np.float64 else np.float32)


def mel_filters(step: LogMel) -> _Floats:
    """The triangular filters, (mels, fft / 2 + 1): each rises from its left neighbour's centre.

    Centres lie at equal distances in mel; "htk" is 2595 log10(1 + Hz / 700) (O'Shaughnessy 1987;
    the HTK Book, section 5.4), "slaney" that of the Auditory Toolbox (Slaney 1998). The sides are
    straight lines in Hz, or in mel as in the HTK Book.

    >>> step = LogMel(input="x", rate=8000, frame=8, hop=8, mels=2)
    >>> mel_filters(step).round(2).tolist()
    [[0.0, 0.68, 0.0, 0.0, 0.0], [0.0, 0.32, 0.91, 0.45, 0.0]]
    """
    bins = np.arange(step.fft_length // 2 + 1) * (step.rate / step.fft_length)
    low, high = _to_mel(np.array([step.low_hz, step.top_hz]), step.scale)
    mels = low + (high - low) * np.arange(step.mels + 2) / (step.mels + 1)
    edges = mels
    places = _to_mel(bins, step.scale)
    if step.triangles is Triangles.HZ:
        edges, places = _to_hz(mels, step.scale), bins
    left, centre, right = (edges[begin : begin + step.mels, None] for begin in range(3))
    filters: _Floats = np.maximum(
        0, np.minimum((places - left) / (centre - left), (right - places) / (right - centre))
    )
    if step.norm is MelNorm.SLANEY:
        hz = _to_hz(mels, step.scale)
        filters *= (2 / (hz[2:] - hz[:-2]))[:, None]
    return filters


def _to_mel(hz: _Floats, scale: MelScale) -> _Floats:
    if scale is MelScale.HTK:
        return np.asarray(2595 * np.log10(1 + hz / 700))
    above = np.maximum(hz, _SLANEY_BREAK_HZ)
    log = _SLANEY_BREAK_MEL + np.log(above / _SLANEY_BREAK_HZ) / _SLANEY_LOG_STEP
    return np.where(hz < _SLANEY_BREAK_HZ, hz / _SLANEY_HZ_PER_MEL, log)


def _to_hz(mel: _Floats, scale: MelScale) -> _Floats:
    if scale is MelScale.HTK:
        return np.asarray(700 * (10 ** (mel / 2595) - 1))
    above = np.maximum(mel, _SLANEY_BREAK_MEL)
    log = _SLANEY_BREAK_HZ * np.exp(_SLANEY_LOG_STEP * (above - _SLANEY_BREAK_MEL))
    return np.where(mel < _SLANEY_BREAK_MEL, mel * _SLANEY_HZ_PER_MEL, log)


def _frames(signals: Array, frame: int, hop: int) -> Array:
    """(N, T, …) to (N, frames, frame, …)."""
    return np.moveaxis(sliding_window_view(signals, frame, axis=1)[:, ::hop], -1, 2)


def _bands(filters: _Floats) -> tuple[npt.NDArray[np.intp], _Floats]:
    """Where each filter begins, and its weights from there on, (widest, mels)."""
    used = filters > 0
    starts = used.argmax(axis=1)
    widest = max(1, int(used.sum(axis=1).max()))
    places = starts + np.arange(widest)[:, None]
    inside = np.minimum(places, filters.shape[1] - 1)
    weights = filters[np.arange(len(filters)), inside]
    return starts, np.where(places < filters.shape[1], weights, 0)


def _filtered(power: _Floats, starts: npt.NDArray[np.intp], weights: _Floats) -> _Floats:
    """The energy in each filter: a sum in one order on every machine, unlike a matrix product."""
    last = power.shape[-1] - 1
    energy = np.zeros((*power.shape[:-1], len(starts)))
    for offset, weight in enumerate(weights):
        part = power[..., np.minimum(starts + offset, last)]
        part *= weight
        energy += part
    return energy
