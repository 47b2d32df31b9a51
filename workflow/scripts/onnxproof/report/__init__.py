"""The page and the table over all models."""
