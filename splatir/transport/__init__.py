"""What light reaches each Gaussian past the others, and what they reflect onto it."""
