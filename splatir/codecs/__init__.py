"""Bytes on disk without any scene knowledge: image formats, and files that are replaced whole."""
