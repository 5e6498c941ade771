"""Posed photographs in: readers of capture formats, images, masks, splits."""
