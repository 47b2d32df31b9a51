"""What a release holds beside its ONNX files."""
