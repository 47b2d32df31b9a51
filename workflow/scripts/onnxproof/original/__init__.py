"""The original model in PyTorch: the only package that imports torch and transformers."""
