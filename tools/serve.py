"""Serve a model: a page on which one shows it a picture, and the same for programs.

    python -m tools.serve models/flowers17/vgg19

Then open the address that it prints. `--host 0.0.0.0` lets other machines of the network in, such
as a phone with its camera.

    GET  /                 the page
    POST /predict          a picture as the body, or in a form: the likeliest classes as JSON
    GET  /samples/CLASS    pictures of a class that the model learned from, where its set is here
    GET  /health           what is served
"""

import asyncio
import logging
import socket
import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import jinja2
import numpy as np
import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import Message

from stages.common.command_line import Parser, UserError, number, run
from stages.pictures.decoding import decode
from tools.classifier import Classifier, Likely, load_classifier
from tools.samples import find_samples, read_samples

FILES = Path(__file__).parent
MAX_BYTES = 20_000_000
"""The largest request; a larger one is read no further than ten times that, and thrown away."""
MAX_WAITING = 32
"""Requests at a time; together they hold no more than so many times MAX_BYTES."""
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


class Service:
    """Answers requests by one classifier, in one thread, one picture after the other."""

    def __init__(self, classifier: Classifier) -> None:
        self.classifier = classifier
        self.worker = ThreadPoolExecutor(1)
        self.waiting = 0
        self.sample_files = find_samples(classifier.path, classifier.set_name)
        self.samples: Mapping[str, bytes] | None = None
        self.reading_samples = asyncio.Lock()

    def warm_up(self) -> None:
        """Look at a black picture, as the first one takes seconds."""
        size = self.classifier.size
        self.worker.submit(
            self.classifier.likeliest, np.zeros((1, size, size, 3), np.uint8)
        ).result()

    def look(self, data: bytes) -> list[Likely]:
        """The likeliest classes of a picture. Raises ValueError when it is none."""
        image = decode(data, self.classifier.size, self.classifier.crop)
        return self.classifier.likeliest(image[np.newaxis])[0]

    async def predict(self, request: Request) -> Response:
        """Answer POST /predict."""
        if self.waiting >= MAX_WAITING:
            raise HTTPException(
                503, "too many pictures are waiting; try again", {"Retry-After": "1"}
            )
        self.waiting += 1
        try:
            data = await read_picture(limited(request))
            loop = asyncio.get_running_loop()
            found = await loop.run_in_executor(self.worker, self.look, data)
        except ValueError as error:
            raise HTTPException(415, f"cannot be read as a picture: {error}") from error
        finally:
            self.waiting -= 1
        return JSONResponse({"predictions": [self.describe(*likely) for likely in found]})

    def describe(self, name: str, probability: float) -> dict[str, object]:
        """A class, its probability, and where its samples are if there are any."""
        described: dict[str, object] = {"class": name, "probability": round(probability, 6)}
        if self.sample_files:
            described["samples"] = f"/samples/{quote(name, safe='')}"
        return described

    async def show_samples(self, request: Request) -> Response:
        """Answer GET /samples/CLASS; the first request reads those of all classes."""
        async with self.reading_samples:
            if self.samples is None:
                self.samples = await asyncio.to_thread(self.read_samples)
        name = request.path_params["name"]
        if name not in self.samples:
            raise HTTPException(404, f"no samples of {name!r}")
        return Response(self.samples[name], media_type="image/jpeg")

    def read_samples(self) -> Mapping[str, bytes]:
        """Samples of each class; none where they cannot be had, which is said on stderr."""
        if self.sample_files is None:
            return {}
        try:
            return read_samples(*self.sample_files, self.classifier.class_names)
        except (UserError, OSError, ValueError) as error:
            print(f"no sample pictures: {error}", file=sys.stderr)
            return {}

    async def health(self, request: Request) -> Response:  # noqa: ARG002
        """Answer GET /health."""
        classifier = self.classifier
        return JSONResponse(
            {
                "status": "ok",
                "model": str(classifier.path),
                "set": classifier.set_name,
                "classes": len(classifier.class_names),
                "image_size": classifier.size,
            }
        )

    async def page(self, request: Request) -> Response:  # noqa: ARG002
        """Answer GET /."""
        environment = jinja2.Environment(loader=jinja2.FileSystemLoader(FILES), autoescape=True)
        template = environment.get_template("serve_page.html.j2")
        return HTMLResponse(template.render(classifier=self.classifier, max_bytes=MAX_BYTES))


def limited(request: Request) -> Request:
    """The request, which answers 413 once more than MAX_BYTES have come."""
    received = 0

    async def receive() -> Message:
        nonlocal received
        message = await request.receive()
        received += len(message.get("body", b""))
        if received <= MAX_BYTES:
            return message
        # Most clients hear the answer only when they have sent everything.
        while message.get("more_body") and received <= 10 * MAX_BYTES:
            message = await request.receive()
            received += len(message.get("body", b""))
        raise HTTPException(413, f"more than {MAX_BYTES:,} bytes; send a smaller picture")

    return Request(request.scope, receive)


async def read_picture(request: Request) -> bytes:
    """The bytes of a picture: the body, or the first file of a form."""
    data: bytes | None = None
    if request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        async with request.form() as form:
            for part in form.values():
                if data is None and isinstance(part, UploadFile):
                    data = await part.read()
    else:
        data = await request.body()
    if not data:
        raise HTTPException(400, "no picture; send its bytes as the body, or a form with a file")
    return data


async def add_headers(request: Request, call_next: RequestResponseEndpoint) -> Response:
    """Add HEADERS to each answer."""
    response = await call_next(request)
    response.headers.update(HEADERS)
    return response


async def describe_error(request: Request, error: Exception) -> Response:  # noqa: ARG001
    """An error as JSON."""
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, headers=error.headers)


async def answer_nobody(request: Request, error: Exception) -> Response:  # noqa: ARG001
    """An answer for a client that has gone away."""
    return Response(status_code=400)


async def page_file(request: Request) -> Response:
    """The page's style, script and icon."""
    return FileResponse(FILES / f"serve_{request.url.path[1:]}")


def build_application(service: Service) -> Starlette:
    """The web application."""
    return Starlette(
        routes=[
            Route("/", service.page),
            *(Route(f"/{name}", page_file) for name in ("page.css", "page.js", "icon.svg")),
            Route("/predict", service.predict, methods=["POST"]),
            Route("/samples/{name:path}", service.show_samples),
            Route("/health", service.health),
        ],
        middleware=[Middleware(BaseHTTPMiddleware, dispatch=add_headers)],
        exception_handlers={HTTPException: describe_error, ClientDisconnect: answer_nobody},
    )


def parse(arguments: Sequence[str]) -> Namespace:
    """The options."""
    parser = Parser(__doc__, "(see `python -m tools.serve --help`)")
    parser.add_argument(
        "model", type=Path, metavar="MODEL", help="models/SET/BACKBONE, or a .keras file in it"
    )
    parser.add_argument("--port", type=number(int, 0, 65535), default=8000, help="0: any free one")
    parser.add_argument("--host", default="127.0.0.1")
    return parser.parse_args(arguments)


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises UserError where the address cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise UserError(
            f"{host}, port {port}: {error.strerror}; choose another by --host or --port"
        ) from error


def main(arguments: Sequence[str]) -> None:
    """Parse the options, load the model, and serve until interrupted."""
    options = parse(arguments)
    # What is wrong with a form is said in the answer.
    logging.getLogger("python_multipart").setLevel(logging.ERROR)
    try:
        with listen(options.host, options.port) as listener:
            print(f"loading {options.model}", file=sys.stderr)
            service = Service(load_classifier(options.model))
            service.warm_up()
            print(service.classifier.description, file=sys.stderr)
            host, port = listener.getsockname()[:2]
            shown = f"[{host}]" if ":" in host else host
            print(f"http://{shown}:{port}  (Ctrl-C ends it)", flush=True)
            config = uvicorn.Config(
                build_application(service),
                log_level="warning",
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=5,
            )
            uvicorn.Server(config).run(sockets=[listener])
    except KeyboardInterrupt:
        return


if __name__ == "__main__":
    run(main)
