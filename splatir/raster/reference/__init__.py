"""The rasteriser in plain torch: any dtype, any device; what the other backends are tested by."""
