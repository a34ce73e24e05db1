"""What the child process knows of Keras: every module here imports keras, on torch's backend."""
