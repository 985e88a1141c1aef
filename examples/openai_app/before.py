"""A support desk on OpenAI, as one finds it."""

from collections.abc import Iterator

from openai import OpenAI

client = OpenAI()

TICKETS = (
    "Where is my parcel?",
    "The kettle leaks. Can I have my money back?",
    "Please change my address to Mill Lane 4.",
)


def kind_of(ticket: str) -> str:
    answer = client.chat.completions.create(
        model="gpt-5-nano",
        messages=[
            {"role": "system", "content": "Answer with one word: parcel, refund or address."},
            {"role": "user", "content": ticket},
        ],
    )
    return answer.choices[0].message.content or ""


def reply_to(ticket: str) -> Iterator[str]:
    stream = client.chat.completions.create(
        model="gpt-5.4",
        messages=[
            {"role": "system", "content": "You are a friendly support agent."},
            {"role": "user", "content": ticket},
        ],
        stream=True,
        stream_options={"include_usage": True},
    )
    for chunk in stream:
        if chunk.choices:
            yield chunk.choices[0].delta.content or ""


if __name__ == "__main__":
    for ticket in TICKETS:
        print(f"{kind_of(ticket)}: {''.join(reply_to(ticket))}")
