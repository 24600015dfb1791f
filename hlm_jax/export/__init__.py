"""A run as files that other tools open: a folder of transformers, or a GGUF file of llama.cpp.

Reads a run and writes files. Needs neither torch nor transformers; `checks` uses them where they
are installed. docs/export.md tells how to use what is written.
"""
