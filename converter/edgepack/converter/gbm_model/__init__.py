"""Gradient boosting: XGBoost, LightGBM and CatBoost, alone and inside scikit-learn's pipelines.

Each library's trees are read into the same values (`ensemble`), from which one writer (`graph`)
makes ONNX: what a comparison at a split point, a missing value or a link function means is decided
once, where it is read. Runs in the child process only.
"""
