"""A run over HTTP: completions as OpenAI's API has them, scores, and a page for readers.

Needs the extra `serve`: starlette, uvicorn and prometheus-client. docs/serving.md describes it.
"""
