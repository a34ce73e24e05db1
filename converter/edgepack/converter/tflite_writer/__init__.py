"""Writes a float32 TFLite file from an ONNX graph, without TensorFlow and without torch.

`write.write_tflite` is the way in. An operator is one function in a module of `operators`; what
is not in their lists is refused by its name. It does not quantize, and it does not judge a model:
`check.check_file` only sees to it that no file is given back that answers differently.
"""
