"""A support desk on LiteLLM with its own `otel` callback; nothing here knows of tierlight.

    python app.py

Each call has a name (`generation_name`, which LiteLLM gives its span); it becomes the route.
"""

from __future__ import annotations

import litellm

litellm.callbacks = ["otel"]  # LiteLLM's own: OTEL_EXPORTER and OTEL_ENDPOINT say where to

TICKETS = (
    "Where is my parcel?",
    "The kettle leaks. Can I have my money back?",
    "Please change my address to Mill Lane 4.",
)


def main() -> None:
    """Answer the tickets: the kind of each in one word, then a reply as a stream."""
    for ticket in TICKETS:
        kind = litellm.completion(
            model="openai/gpt-5-nano",
            messages=[{"role": "user", "content": f"One word, parcel, refund or address: {ticket}"}],
            metadata={"generation_name": "support.intent"},
        )
        reply = litellm.completion(
            model="anthropic/claude-haiku-4-5",
            messages=[{"role": "user", "content": ticket}],
            max_tokens=400,
            stream=True,
            stream_options={"include_usage": True},
            metadata={"generation_name": "support.reply"},
        )
        answer = "".join(chunk.choices[0].delta.content or "" for chunk in reply if chunk.choices)
        print(f"{kind.choices[0].message.content}: {answer}")


if __name__ == "__main__":
    main()
