"""Timing the forms of a model in turns."""
