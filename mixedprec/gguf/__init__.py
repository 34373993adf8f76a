"""GGUF files, llama.cpp's own format, as the reference of a run."""
