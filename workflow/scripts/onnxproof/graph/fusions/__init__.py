"""Fusions of several nodes into one operator of onnxruntime, as rewrite rules of onnxscript.

Each module has one rule and a function that applies it to a model. A rule's check fails with a reason; the reasons are
kept, so that it can be told why a graph stayed as it was.
"""
