"""A browser page for one trained scene: look, relight, edit. Needs the extra `splatir[viewer]`."""
