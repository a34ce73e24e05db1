"""What the child process knows of scikit-learn: load, describe, run, export.

Every module here imports scikit-learn; none is imported in the user's process.
"""
