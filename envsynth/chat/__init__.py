"""Any model behind an OpenAI-compatible endpoint: retries, budget, disk cache, cassettes. The only door to `openai`.

The library is loaded when the first request really leaves this machine, so replayed and cached chats need neither it
nor a key.
"""

from __future__ import annotations

from envsynth.chat.client import ChatBudget, ChatClient, ChatOptions
from envsynth.chat.memory import Cassette, DiskCache
from envsynth.chat.messages import ChatCall, ChatReply, ChatRequest

__all__ = [
    "Cassette",
    "ChatBudget",
    "ChatCall",
    "ChatClient",
    "ChatOptions",
    "ChatReply",
    "ChatRequest",
    "DiskCache",
]
