"""Inverse rendering with Gaussian splatting: posed photographs in, a relightable scene out."""

# Pillow has to be loaded before pycolmap, whoever imports it: both carry a zlib, and in the other
# order writing a PNG aborts the process (free(): invalid pointer; Pillow 13.0, pycolmap 4.2.1).
import PIL.Image  # noqa: F401

__version__ = "0.1.0"
