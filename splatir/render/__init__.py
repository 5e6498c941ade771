"""Images of a scene: rasterisation plus appearance."""
