"""People's own files as models: an ONNX graph `net.onnx`, or a ready engine `net.plan`."""
