"""What the pipeline's scripts share.

Nothing here imports torch, transformers or optimum at module level: most steps run without them.
"""
