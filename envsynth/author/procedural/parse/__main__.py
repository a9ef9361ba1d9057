"""Parser as a process of its own: one JSON request per line on standard input, one JSON reply per line.

Request: `{"text": prompt, "docs": public docs}`. Reply: `{"ir": program as JSON}` or `{"error": what is wrong}`.
"""

from __future__ import annotations

import json
import sys
from typing import IO, Any

from envsynth.author.procedural.ir import to_json
from envsynth.author.procedural.parse.errors import ParseError
from envsynth.author.procedural.parse.sentences import parse


def reply(line: str) -> dict[str, Any]:
    """Answer one request; a request that is no valid JSON or lacks a key is answered with an error, too."""
    try:
        request = json.loads(line)
        return {"ir": to_json(parse(request["text"], request["docs"]))}
    except ParseError as error:
        return {"error": str(error)}
    except (KeyError, TypeError, ValueError) as error:
        return {"error": f"malformed request: {type(error).__name__}: {error}"}


def serve(requests: IO[str], replies: IO[str]) -> None:
    """Answer requests until the input ends; each reply is flushed at once."""
    for line in requests:
        if line.strip():
            replies.write(json.dumps(reply(line)) + "\n")
            replies.flush()


if __name__ == "__main__":
    serve(sys.stdin, sys.stdout)
