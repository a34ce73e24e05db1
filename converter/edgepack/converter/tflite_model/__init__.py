"""Ready TFLite files as originals; everything here runs in the child process."""
