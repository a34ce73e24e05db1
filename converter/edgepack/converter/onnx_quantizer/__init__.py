"""ONNX made smaller: fp16 weights, dynamic and static int8, and what that costs layer by layer.

Imports onnx and onnxruntime, so it runs in a child process only.
"""
