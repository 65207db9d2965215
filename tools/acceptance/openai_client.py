"""The OpenAI Python client against a running server: lists models, chats, streams.

    python openai_client.py http://127.0.0.1:30000      # needs: pip install openai
"""

import sys

from openai import BadRequestError, OpenAI

QUESTION = [{"role": "user", "content": "What is the capital of France?"}]


def main(base_url):
    client = OpenAI(base_url=f"{base_url}/v1", api_key="none")
    model = client.models.list().data[0]
    assert client.models.retrieve(model.id).id == model.id
    print("model:", model.id, "owned by", model.owned_by)

    options = {"model": model.id, "messages": QUESTION, "temperature": 0, "max_tokens": 32}
    chat = client.chat.completions.create(**options)
    answer = chat.choices[0].message.content
    assert "Paris" in answer, answer
    assert chat.usage.total_tokens == chat.usage.prompt_tokens + chat.usage.completion_tokens
    print("chat:", answer, chat.usage)

    pieces, usage = [], None
    for chunk in client.chat.completions.create(**options, stream=True, stream_options={"include_usage": True}):
        usage = chunk.usage or usage
        pieces += [choice.delta.content or "" for choice in chunk.choices]
    assert "".join(pieces) == answer, pieces
    assert usage.total_tokens == chat.usage.total_tokens
    print("stream:", len(pieces), "pieces, the same text")

    completion = client.completions.create(model=model.id, prompt="The capital of Italy is", temperature=0, max_tokens=8)
    print("completion:", repr(completion.choices[0].text))

    try:
        client.chat.completions.create(**options | {"temperature": -1})
    except BadRequestError as error:
        print("refused:", error.message)
    else:
        raise AssertionError("a negative temperature was accepted")


if __name__ == "__main__":
    main(sys.argv[1].rstrip("/"))
