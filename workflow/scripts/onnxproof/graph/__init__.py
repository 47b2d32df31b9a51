"""ONNX graphs: reading, changing, running and storing them."""
