"""How each ONNX operator is written, by subject; `OPERATORS` of each module is its list."""
