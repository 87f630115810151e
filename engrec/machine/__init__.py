"""Files, processes, signals, hardware, and the cluster."""
