"""What a hostile or broken caller can send: a clear problem document, and the service stays up."""

import json

import pytest

CARD_NUMBER = "5500005555555559"


async def refused(api, content, **headers):
    response = await api.post("/v1/decisions", content=content, headers=headers)
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["status"] == response.status_code
    assert CARD_NUMBER not in response.text
    assert (await api.get("/health")).status_code == 200
    return response.status_code, problem["errors"][0]["field"]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff", b'{"amount": NaN}', b"[" * 10_000])
async def test_a_malformed_body_is_a_422(api, content):
    assert await refused(api, content) == (422, "body")


@pytest.mark.parametrize(
    ("field", "written"),
    [
        ("currency", '"XXX"'),
        ("amount", "1e308"),
        ("amount", "-1"),
        ("amount", "Infinity"),
        ("amount", CARD_NUMBER),
        ("merchant_id", '"\\ud800"'),
        ("card_id", f'"{CARD_NUMBER}"'),
        ("device_id", f'"{CARD_NUMBER}"'),
        ("transaction_id", '"' + "t" * 65 + '"'),
        ("event_time", '"2026-02-30T00:00:00Z"'),
        ("event_time", '"2999-01-01T00:00:00Z"'),
        ("amuont", "1"),
        (CARD_NUMBER, "1"),
    ],
)
async def test_a_field_that_breaks_its_rule_is_a_422_that_names_it(api, body, field, written):
    fields = {name: json.dumps(value) for name, value in body().items()} | {field: written}
    content = "{" + ", ".join(f'"{name}": {value}' for name, value in fields.items()) + "}"
    unnameable = {"Infinity", '"\\ud800"'}  # not JSON at all
    expected = "body" if written in unnameable or field == CARD_NUMBER else field
    assert await refused(api, content.encode()) == (422, expected)


async def test_a_body_of_ten_megabytes_is_a_413(api):
    assert await refused(api, b" " * 10_000_000) == (413, "body")


async def test_a_body_that_hides_its_length_is_a_413_as_soon_as_it_is_too_long(api):
    async def endless():
        for _ in range(1_000):
            yield b" " * 1_000

    assert await refused(api, endless()) == (413, "body")


async def test_a_card_number_in_a_path_is_a_422_that_does_not_repeat_it(api):
    response = await api.get(f"/v1/decisions/{CARD_NUMBER}/t1")
    assert response.status_code == 422
    assert CARD_NUMBER not in response.text


async def test_nothing_of_this_was_counted(api, body, state):
    transaction = body(amount=10**11)
    await api.post("/v1/decisions", json=transaction)
    assert not [key for key in state() if transaction["card_id"].encode() in key]


async def test_the_openapi_document_describes_the_doors(api):
    document = (await api.get("/openapi.json")).json()
    assert {"/v1/decisions", "/v1/decisions/{card_id}/{transaction_id}", "/v1/labels"} <= set(document["paths"])
    assert "amount" in document["components"]["schemas"]["Transaction"]["properties"]
