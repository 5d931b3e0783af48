"""OpenAI's own client against a running server: python openai_client.py http://127.0.0.1:PORT [KEY]"""

import base64
import struct
import sys
import zlib

import openai


def png(channels, side=64, clear=0):
    """A PNG; with four channels the first `clear` columns are transparent."""
    def pixel(x, y):
        return bytes([x * 4, y * 4, 90] + [0 if x < clear else 255] * (channels == 4))

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + b"".join(pixel(x, y) for x in range(side)) for y in range(side))
    head = struct.pack(">IIBBBBB", side, side, 8, 6 if channels == 4 else 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


CASES = []


def case(function):
    CASES.append(function)
    return function


def raises(kind, param, call):
    try:
        call()
    except kind as error:
        assert error.param == param, f"{error.param}: {error}"
        return error
    raise AssertionError(f"expected {kind.__name__}")


@case
def models(client):
    listed = client.models.list().data
    assert client.models.retrieve(listed[0].id).id == listed[0].id


@case
def generations(client):
    settings = dict(prompt="red heart", size="64x64", extra_body={"seed": 7, "steps": 3, "guidance_scale": 2})
    answer = client.images.generate(n=2, model=client.models.list().data[0].id, **settings)
    first, second = (base64.b64decode(image.b64_json) for image in answer.data)
    assert first.startswith(b"\x89PNG") and first != second
    assert (answer.size, answer.output_format, answer.usage.total_tokens) == ("64x64", "png", 0)
    again = client.images.generate(**settings)
    assert base64.b64decode(again.data[0].b64_json) == first, "the same seed"


@case
def urls(client):
    answer = client.images.generate(prompt="sun", response_format="url", output_format="webp", extra_body={"steps": 1})
    path = answer.data[0].url.split("/v1/", 1)[1]
    assert client.with_options().get("/" + path, cast_to=openai._legacy_response.HttpxBinaryResponseContent).content[:4] == b"RIFF"


@case
def streams(client):
    settings = dict(prompt="sun", size="64x64", extra_body={"seed": 1, "steps": 200})
    events = list(client.images.generate(stream=True, partial_images=2, **settings))
    *partial, last = events
    assert 1 <= len(partial) <= 2, f"{len(partial)} partial images"
    assert [event.partial_image_index for event in partial] == list(range(len(partial)))
    assert all(event.type == "image_generation.partial_image" for event in partial)
    assert last.type == "image_generation.completed" and last.usage.total_tokens == 0
    assert client.images.generate(**settings).data[0].b64_json == last.b64_json


@case
def edits(client):
    settings = dict(prompt="red heart", image=("a.png", png(3)), extra_body={"seed": 3, "steps": 4})
    mask = ("mask.png", png(4, clear=32))
    masked = client.images.edit(mask=mask, **settings).data[0].b64_json
    whole = client.images.edit(**settings).data[0].b64_json
    assert masked != whole
    [event] = client.images.edit(mask=mask, stream=True, **settings)
    assert event.type == "image_edit.completed" and event.b64_json == masked
    settings["image"] = [settings["image"]]
    assert client.images.edit(mask=mask, **settings).data[0].b64_json == masked, "a list of one"
    settings["image"] *= 2
    raises(openai.BadRequestError, "image", lambda: client.images.edit(**settings))


@case
def variations(client):
    answer = client.images.create_variation(image=png(3), n=2, size="64x64", extra_body={"steps": 2})
    assert len(answer.data) == 2


@case
def errors(client):
    generate = client.images.generate
    error = raises(openai.NotFoundError, "model", lambda: generate(prompt="a", model="dall-e-3"))
    assert error.code == "not_found" and error.response.headers["x-should-retry"] == "false"
    raises(openai.BadRequestError, "n", lambda: generate(prompt="a", n=11))
    raises(openai.BadRequestError, "size", lambda: generate(prompt="a", size="60x64"))
    raises(openai.BadRequestError, "steps", lambda: generate(prompt="a", stream=True, extra_body={"steps": 0}))
    raises(openai.NotFoundError, "model", lambda: client.models.retrieve("none"))
    raises(openai.BadRequestError, "mask", lambda: client.images.edit(image=png(3), mask=png(4, 32, 4), prompt="a"))


@case
def canceled_streams(client):
    stream = client.images.generate(prompt="sun", stream=True, extra_body={"steps": 1000})
    job = stream.response.headers["x-request-id"]
    client.post(f"/jobs/{job}/cancel", cast_to=object)
    try:
        list(stream)
    except openai.APIError as error:
        assert "canceled" in error.message, error.message
        return
    raise AssertionError("expected APIError")


def main():
    base, key = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "none"
    client = openai.OpenAI(base_url=base.rstrip("/") + "/v1", api_key=key, max_retries=0)
    failed = 0
    for function in CASES:
        try:
            function(client)
            print("OK", function.__name__)
        except Exception as error:
            failed += 1
            print("FAILED", function.__name__, f"{type(error).__name__}: {error}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
