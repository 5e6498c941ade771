"""File formats of images: bytes on disk to arrays and back, without any scene knowledge."""
