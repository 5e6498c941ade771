"""Inverse rendering with Gaussian splatting: posed photographs in, a relightable scene out."""

__version__ = "0.1.0"
