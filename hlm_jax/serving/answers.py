"""Answers of the reading routes: JSON, and files to be saved."""

import json
from typing import Any

from starlette.responses import Response


def as_json(data: Any) -> str:
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def answered(body: str, file: str | None = None) -> Response:
    """JSON; a table or a drawing to be saved where `file` names it .csv or .svg."""
    if file is None:
        return Response(body, media_type="application/json")
    kinds = {"csv": "text/csv; charset=utf-8", "svg": "image/svg+xml"}
    headers = {"Content-Disposition": f'attachment; filename="{file}"'}
    return Response(body, media_type=kinds[file.rpartition(".")[2]], headers=headers)
