"""What the child process knows of TensorFlow: every module here but `operators` imports it."""
