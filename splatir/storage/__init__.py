"""Files that outlive a process: checkpoints and splat PLY."""
