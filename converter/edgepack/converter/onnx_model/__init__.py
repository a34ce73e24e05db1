"""What the child process knows of ready ONNX files. Every module here imports onnx."""
