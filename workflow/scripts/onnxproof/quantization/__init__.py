"""Dynamic int8 quantization of transformer encoders for ONNX Runtime, as small passes over an ONNX graph.

``recipe.apply_recipe`` runs an ordered list of passes; ``search.ladder.find_recipe`` chooses the list. Each pass
lives in a module of its own, edits the model it is given, and can be read and tested alone.
"""
