"""One spatial mixer per file; each maps (B, H, W, C) to (B, H, W, C) and is built for one resolution."""
