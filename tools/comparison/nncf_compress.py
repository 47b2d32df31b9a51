"""Compress the weights of an ONNX file with NNCF: run by the interpreter that has it, alone.

Usage: nncf_compress.py model.onnx mode model.xml. The mode is one of ``nncf.CompressWeightsMode``, such as int4_sym.
"""

import sys


def main(model: str, mode: str, output: str) -> None:
    """Compress with NNCF's defaults: with 4 bits, the table of embeddings and the head keep 8."""
    import nncf
    import openvino

    kind = nncf.CompressWeightsMode(mode)
    openvino.save_model(nncf.compress_weights(openvino.Core().read_model(model), mode=kind), output)


if __name__ == "__main__":
    main(*sys.argv[1:])
