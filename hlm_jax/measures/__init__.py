"""One figure about a text or a model in each module."""
