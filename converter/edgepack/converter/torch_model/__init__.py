"""What the child process knows of PyTorch. Every module here imports torch."""
