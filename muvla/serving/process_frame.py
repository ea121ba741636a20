"""HTTP `POST /process_frame`, as MemoryVLA's deployment.

| part | content |
|---|---|
| file `image` | PNG or JPEG of the first camera; the server takes the central square |
| file `image_wrist` | of the second camera, where the policy has two |
| form `text` | the instruction |
| form `episode_first_frame` | `True` or `False` |
| form `proprio` | the robot's state as a JSON list, where the policy reads it; MemoryVLA's has none |
| header `X-Muvla-Session` | names the session; without the header, one session has the whole server |
| header `X-Muvla-Sequence` | number of the request, which grows over the whole session |
| header `X-Muvla-Seed` | keys the random draws of the episode that begins |
| header `X-Muvla-Step` | environment step of the frame, for clients that execute chunks of changing length |

The answer is `{"response": [A numbers]}`, or a list of such lists under the regime `chunk`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from muvla.errors import MuvlaError
from muvla.serving.gate import Gate
from muvla.serving.observation import Observed
from muvla.serving.pictures import centre_square, decode_beside
from muvla.serving.refusal import CONFLICT, Refused
from muvla.serving.sessions import Session
from muvla.utils.foreign import parse_json

WIRE = "http"
FLAGS = {"True": True, "False": False}
CAMERAS, FIELDS = ("image", "image_wrist"), ("text", "episode_first_frame", "proprio")
CHUNK = 2**16  # bytes that are read from a part at a time


class MissingField(Refused):
    """A part of the form is missing. The text of the answer is MemoryVLA's."""


@dataclass
class Form:
    """The parts of a request."""

    fields: dict[str, str] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)


async def handle(request: web.Request) -> web.Response:
    """One frame."""
    gate: Gate = request.app[Gate.KEY]
    try:
        form = await _read(request)
        observed, first = await _observed(gate, form)
        answer = await _act(gate, request, observed, first)
    except MissingField as error:
        gate.refuse(error)
        return web.json_response({"error": f"No {error.field} provided"}, status=error.status)
    return web.json_response({"response": gate.in_shape(answer.actions).tolist()})


async def _read(request: web.Request) -> Form:
    """Read the form in memory. aiohttp's `post` would write the files of a multipart form to disk."""
    form = Form()
    try:
        # aiohttp's `content_type` takes longer than a small picture: every form has a new boundary to parse.
        if not request.headers.get("Content-Type", "").lower().startswith("multipart/form-data"):
            form.fields = {name: value for name, value in (await request.post()).items() if isinstance(value, str)}
            return form
        async for part in await request.multipart():
            part.chunk_size = CHUNK
            data = bytes(await part.read())
            # aiohttp parses a part's header anew for its file name, which decides nothing here.
            if part.name in CAMERAS:
                form.files[part.name] = data
            elif part.name in FIELDS:
                form.fields[part.name] = data.decode("utf-8")
    except (web.HTTPException, OSError):  # too large, or a client that left
        raise
    except Exception as error:  # aiohttp raises many types for broken bodies
        raise _refused("form", f"a broken body ({type(error).__name__})", "a whole multipart form") from None
    return form


async def _observed(gate: Gate, form: Form) -> tuple[Observed, bool]:
    """The frame, and whether it is an episode's first. The order of the checks is MemoryVLA's."""
    for name, parts in (("image", form.files), ("text", form.fields), ("episode_first_frame", form.fields)):
        if name not in parts:
            raise MissingField(name, got=None, expected="a value", remedy=f"send the part {name}")
    flag = form.fields["episode_first_frame"]
    if flag not in FLAGS:
        raise _refused("episode_first_frame", flag, "True or False")
    names = [name for name in CAMERAS if form.files.get(name)]
    pictures = [centre_square(await decode_beside(form.files[name], name)) for name in names]
    needs = gate.sessions.slots.needs
    cameras = dict(zip(needs.names or names, pictures, strict=False))
    return needs.check(cameras, _proprio(form), form.fields["text"]), FLAGS[flag]


def _proprio(form: Form) -> Any:
    if "proprio" not in form.fields:
        return None
    try:
        return parse_json(form.fields["proprio"], "proprio")
    except MuvlaError as error:
        raise _refused("proprio", error.got, "a JSON list of numbers") from None


async def _act(gate: Gate, request: web.Request, observed: Observed, first: bool):
    session = _session(gate, request)
    sequence = _number(request, "X-Muvla-Sequence")
    is_repeated = sequence is not None and session.sequence is not None and sequence <= session.sequence
    if first and not is_repeated:
        await gate.sessions.begin(session, gate.seed(_number(request, "X-Muvla-Seed")))
    return await gate.act(WIRE, session, observed, sequence, _number(request, "X-Muvla-Step"))


def _session(gate: Gate, request: web.Request) -> Session:
    name, owner = request.headers.get("X-Muvla-Session", ""), request.remote or ""
    if len(name) > 200:
        raise _refused("X-Muvla-Session", f"{len(name)} characters", "at most 200 characters")
    session = gate.sessions.sessions.get(f"{WIRE} {name}")
    if session is None:
        return gate.sessions.open(f"{WIRE} {name}", owner)
    if session.owner != owner:
        raise Refused(
            "X-Muvla-Session",
            got=f"{name!r} of another client address" if name else "a second client address without a session's name",
            expected="one client address for a session",
            remedy="send the header X-Muvla-Session with a name of this client",
            status=CONFLICT,
        )
    return session


def _number(request: web.Request, header: str) -> int | None:
    text = request.headers.get(header)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 15):
        raise _refused(header, text, "a whole number")
    return int(text)


def _refused(name: str, got: Any, expected: str) -> Refused:
    return Refused(name, got=got, expected=expected, remedy="send the form as docs/serving.md describes it")
