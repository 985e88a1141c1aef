"""A support desk on LangChain that knows nothing of tierlight, nor of OpenTelemetry.

    opentelemetry-instrument python app.py

Its chains have names (`run_name`), which is good LangChain anyway; they become the routes.
"""

from __future__ import annotations

from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable
from langchain_openai import ChatOpenAI

TICKETS = (
    "Where is my parcel?",
    "The kettle leaks. Can I have my money back?",
    "Please change my address to Mill Lane 4.",
)


def chain(name: str, model: str, instruction: str) -> Runnable[dict[str, str], str]:
    """A prompt, a model and its text, under a name."""
    prompt = ChatPromptTemplate.from_messages([("system", instruction), ("human", "{ticket}")])
    return (prompt | ChatOpenAI(model=model, stream_usage=True) | StrOutputParser()).with_config(
        run_name=name
    )


def main() -> None:
    """Answer the tickets: the kind of each in one word, then a reply as a stream."""
    intent = chain("support.intent", "gpt-5-nano", "Answer with one word: parcel, refund or address.")
    reply = chain("support.reply", "gpt-5.4", "You are a friendly support agent.")
    for ticket in TICKETS:
        kind = intent.invoke({"ticket": ticket})
        answer = "".join(reply.stream({"ticket": ticket}))
        print(f"{kind}: {answer}")


if __name__ == "__main__":
    main()
