"""The page at /: static files, which may load and reach nothing but this server."""

from __future__ import annotations

from importlib.resources import files

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from jaxphoton.server.operation import Described, Operation

# No inline scripts or styles, nothing from elsewhere, in nobody's frame. Pictures that were chosen are blob addresses.
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob: data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",  # another version of the server may answer at the same address
}
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


def routes(max_body: int) -> list[Operation]:
    """The page and its files.

    Args:
      max_body: bytes of the largest body that the server takes; the page makes larger pictures smaller.
    """
    assets = {each.name: each.read_bytes() for each in files("jaxphoton.server").joinpath("assets").iterdir()}
    index = assets.pop("index.html").replace(b"{max_body}", str(max_body).encode())

    async def page(request: Request) -> Response:
        return _response("index.html", index)

    async def asset(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in assets:
            raise HTTPException(404)
        return _response(name, assets[name])

    described = Described("the page", open=True, hidden=True)
    return [Operation("GET", "/", page, described), Operation("GET", "/page/{name}", asset, described)]


def _response(name: str, content: bytes) -> Response:
    return Response(content, media_type=_TYPES[name[name.rindex(".") :]], headers=HEADERS)
