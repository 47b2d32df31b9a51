"""Fetching from the Hugging Face Hub."""
