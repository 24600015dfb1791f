"""What a trained model, and counting, say about a text. For readers; nothing here trains a model.

Each module has a page in docs/ with examples. Import what you need from the module itself.
"""
