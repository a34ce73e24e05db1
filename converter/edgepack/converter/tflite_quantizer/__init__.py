"""TFLite files made smaller: calibrated, quantized, ranked, looked at; in a child process."""
