"""The training loop, its stages, and the run folder it writes."""
