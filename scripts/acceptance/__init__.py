"""What only a GPU can prove, one check after another: `scripts/gpu_acceptance.py` runs them."""
