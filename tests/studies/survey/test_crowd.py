"""Many raters at once."""

from __future__ import annotations

import asyncio
import random
import ssl
import time

import pytest

pytest.importorskip("starlette", reason="extra serve is not installed")
httpx = pytest.importorskip("httpx", reason="httpx is not installed")

from makers.survey import Server, links, made_survey  # noqa: E402
from spurbench.studies.survey.design import Survey  # noqa: E402
from spurbench.studies.survey.store import FILE, read  # noqa: E402

RATERS = 500


@pytest.mark.slow
def test_five_hundred_at_once_lose_no_answer_though_the_server_is_killed(tmp_path):
    """As the page does it: sent again until confirmed, some twice, some changed."""
    made_survey(tmp_path, raters=RATERS, images=4, repeats=2)
    folder = tmp_path / "survey"
    given: dict[tuple[int, int], int] = {}
    confirmed = 0
    server = Server(folder)
    context = ssl.create_default_context()

    async def rate(rater, token):
        # A connection each, as browsers have; one pool of five hundred searches them all the time.
        settings = {"base_url": server.address, "headers": {"Origin": server.address}}
        async with httpx.AsyncClient(verify=context, timeout=60, **settings) as client:
            await answer(client, rater, token)

    async def answer(client, rater, token):
        nonlocal confirmed
        rng = random.Random(rater)
        for position in range(10):
            for revision in range(1, rng.choice([1, 1, 1, 2]) + 1):
                grade = rng.randint(1, 5)
                answers = [{"position": position, "grade": grade, "revision": revision}]
                for _ in range(rng.choice([1, 1, 2])):  # some are sent again needlessly
                    while True:
                        try:
                            reply = await client.post(f"/r/{token}/answers", json=answers)
                        except httpx.TransportError:
                            await asyncio.sleep(rng.uniform(0.2, 0.6))
                            continue
                        assert reply.status_code == 200 and reply.json() == answers
                        break
                given[rater, position] = grade
                confirmed += 1

    async def crowd():
        nonlocal server
        raters = [rate(r, link["token"]) for r, link in enumerate(links(folder))]
        gathered = asyncio.gather(*raters)
        for part in (1500, 3500):
            while confirmed < part:
                await asyncio.sleep(0.02)
            server.kill()
            server = await asyncio.to_thread(Server, folder, server.port)
        await gathered

    started = time.perf_counter()
    try:
        asyncio.run(crowd())
    finally:
        server.kill()
    print(f"{confirmed} answers in {time.perf_counter() - started:.1f} s")  # noqa: T201
    kept = read(folder / FILE, Survey.read(folder).id)
    assert len(given) == 10 * RATERS
    assert {(r, a.position): a.grade for r, answers in kept.items() for a in answers} == given
