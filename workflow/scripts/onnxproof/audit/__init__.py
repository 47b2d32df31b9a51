"""Files that others published, held to the model that they were made from."""
