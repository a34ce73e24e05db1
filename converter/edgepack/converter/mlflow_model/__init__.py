"""MLflow's model folders: which file in one is the model, and what is said of its inputs."""
