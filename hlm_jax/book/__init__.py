"""Text and token ids; imports no JAX."""
