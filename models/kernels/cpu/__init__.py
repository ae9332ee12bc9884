"""C++ kernels, compiled where they are used: build.py loads them, a file each registers them with torch."""
