"""The page of the server: one HTML file of the assets beside this module and of analysis/page.

It reaches for nothing but its own server. Its content policy names the hashes of its one script and
its one style sheet; text of a book or a model is written with textContent.
"""

import base64
import functools
import hashlib
import re
from importlib import resources

from starlette.requests import Request
from starlette.responses import HTMLResponse

from hlm_jax.analysis.page import asset as shared
from hlm_jax.analysis.page import both, escape, heatmap

SCRIPTS = ("app.js", "write.js", "read.js", "chapters.js", "find.js", "start.js")
TITLE = both("A model of one book", "一部书的模型")


def asset(name: str) -> str:
    """The text of a file that lies beside this module."""
    return resources.files(__name__).joinpath(name).read_text(encoding="utf-8")


@functools.cache
def page_html() -> str:
    """The whole page."""
    body = asset("page.html")
    for prefix in ("read-", "compare-"):
        body = body.replace(f"<!-- {prefix}frame -->", heatmap.frame(prefix=prefix))
    body = re.sub(r"\[\[(.*?)\|(.*?)\]\]", lambda found: both(found[1], found[2]), body)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>{escape(TITLE.english)}</title>
<style>{_style()}</style>
</head>
<body>
{body}
<script>{_script()}</script>
</body>
</html>
"""


@functools.cache
def headers() -> dict[str, str]:
    """What a browser must not do with the page."""
    policy = {
        "default-src": "'none'",
        "script-src": _digest(_script()),
        "style-src": _digest(_style()),
        "connect-src": "'self'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    return {
        "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
        "Cache-Control": "no-cache",
    }


async def page_response(request: Request) -> HTMLResponse:
    """GET /: the page."""
    return HTMLResponse(page_html(), headers=headers())


@functools.cache
def _script() -> str:
    parts = [shared("page.js"), *map(shared, heatmap.SCRIPTS), *map(asset, SCRIPTS)]
    return "\n".join(parts).replace("</", "<\\/")


@functools.cache
def _style() -> str:
    return "\n".join([shared("page.css"), heatmap.style(), asset("page.css")]).replace("</", "<\\/")


def _digest(text: str) -> str:
    """The name by which a content policy allows this script or style sheet alone."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
