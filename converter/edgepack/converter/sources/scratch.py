"""How large the files may be that a source's child process writes; imports nothing."""

SMALL_FILES = 1 << 20  # nothing but the semaphores of thread pools
LARGE_FILES = 8 << 30  # exporters that work on files: PyTorch, TensorFlow, the quantizers
