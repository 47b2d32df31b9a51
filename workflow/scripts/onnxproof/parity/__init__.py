"""How far a variant's answers are from PyTorch's."""
