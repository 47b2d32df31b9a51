"""Passes of a quantization recipe, one file each."""
