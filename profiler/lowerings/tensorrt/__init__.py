"""TensorRT engines: built from ONNX, kept, proven from what the builder says, run through CUDA's driver.

One code path over TensorRT 10 and 11 and TensorRT-RTX: what differs is asked for, never told by version.
"""
