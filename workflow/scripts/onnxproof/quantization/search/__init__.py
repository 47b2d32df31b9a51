"""The search for the recipe that a model needs."""
