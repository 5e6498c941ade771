"""Rasterisation: one contract, three backends."""
