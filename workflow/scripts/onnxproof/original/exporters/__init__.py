"""Exporters to ONNX, behind one interface."""
