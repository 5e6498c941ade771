"""Scores of a trained scene on held-out views, and the pictures that go with them."""
