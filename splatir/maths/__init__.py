"""Pure functions on tensors: frames, rotations, colour, spherical harmonics, image similarity."""
