"""What the operating system, the hardware and the cluster give."""
