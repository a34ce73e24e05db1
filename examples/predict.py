"""Use a bundle in a program: load, predict, and see what a wrong input gets."""

import sys

import numpy as np

from edgepack.runtime import InputError, load

model = load(sys.argv[1])
(spec,) = model.contract.inputs
row = np.full((1, len(spec.feature_names)), 1.0, np.float32)
outputs = model.predict({spec.name: row})
print("label", outputs["label"][0], "probabilities", outputs["probabilities"][0])
try:
    model.predict({spec.name: row[:, :3]})
except InputError as error:
    print("refused:", error)
