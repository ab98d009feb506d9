"""The page that Prometheus reads, in Prometheus' own words."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from appliance.config.models import Limits
from appliance.gateway.families import FAMILIES
from appliance.routing import Routing
from tests.gateway.scraping import OPENMETRICS, SCRAPER, page, value
from tests.gateway.served import FakePort, Served, chat, key, raw_post, route, serve
from tests.gateway.test_streaming import fragile, stats
from tests.support import fake_engine, wait_until

CHAT = "/v1/chat/completions"


@contextmanager
def measured(engine: Path, **more: Any) -> Iterator[Served]:
    keys = (
        key("mine", "sk-mine", limits=Limits(requests_per_minute=5)),
        key("scraper", "sk-scraper", scopes=("metrics",)),
    )
    routes = {"tiny": route(engine), "other": None, **more}
    table = Routing(routes=routes, aliases={"gpt-test": "tiny"}, keys=keys)
    with serve(FakePort(table), metrics=True) as served:
        yield served


def ask(served: Served, path: str = CHAT, **more: Any) -> int:
    return served.ask("POST", path, chat(**more), {"authorization": "Bearer sk-mine"}).status


def test_the_numbers_are_those_of_what_was_sent(engine: Path) -> None:
    with measured(engine) as served:
        for model, stream in (("tiny", False), ("gpt-test", True), ("tiny", True)):
            assert ask(served, model=model, stream=stream, fake={"events": 30}) == 200
        assert ask(served, fake={"status": 500}) == 500
        assert ask(served, model="nonsense") == 404
        assert ask(served) == 200
        assert ask(served) == 429
        assert served.ask("POST", CHAT, chat(), {"authorization": "Bearer sk-wrong"}).status == 401
        served.ask("GET", "/healthz")
        wait_until(lambda: len(served.lines()) >= 8)

        requests = {
            (
                sample.labels["model"],
                sample.labels["key"],
                sample.labels["dialect"],
                sample.labels["status"],
            ): sample.value
            for sample in page(served)["appliance_requests"].samples
            if sample.name == "appliance_requests_total"
        }
        assert requests == {
            ("tiny", "mine", "openai", "200"): 4,
            ("tiny", "mine", "openai", "500"): 1,
            ("", "mine", "openai", "404"): 1,
            ("tiny", "mine", "openai", "429"): 1,
            ("", "", "openai", "401"): 1,
        }
        words = 9  # "tiny answers HASH:" and the six of the prompt
        assert value(served, "appliance_completion_tokens_total", model="tiny", key="mine") == 3 * 30 + words
        assert value(served, "appliance_prompt_tokens_total", model="tiny", key="mine") == 4 * 6
        assert value(served, "appliance_limited_requests_total", key="mine", limit="requests_per_minute") == 1
        assert value(served, "appliance_errors_total", model="tiny", code="engine_failed") == 1
        assert value(served, "appliance_errors_total", code="model_not_found") == 1
        assert value(served, "appliance_request_duration_seconds_count", model="tiny") == 5
        assert value(served, "appliance_time_to_first_token_seconds_count", model="tiny") == 2
        assert value(served, "appliance_inter_token_seconds_count", model="tiny") == 2
        assert value(served, "appliance_requests_total", key="scraper") >= 1


def test_state_is_that_of_the_reconciler(engine: Path) -> None:
    with measured(engine) as served:
        assert value(served, "appliance_reloads_total", outcome="applied") == 2
        assert value(served, "appliance_rollouts_total", outcome="ready") == 1
        assert value(served, "appliance_engine_restarts_total", model="tiny") == 3
        assert value(served, "appliance_engine_memory_bytes", model="tiny") == 600
        assert value(served, "appliance_memory_budget_bytes") == 1000
        assert value(served, "appliance_memory_taken_bytes") == 600
        assert value(served, "appliance_generation") == 1
        assert value(served, "appliance_model_ready", model="other") == 0
        assert value(served, "appliance_engine_state", model="tiny", state="ready") == 1
        assert value(served, "appliance_engine_state", model="tiny") == 1
        assert value(served, "appliance_build_info") == 1
        assert value(served, "process_resident_memory_bytes") > 1e6


def test_what_runs_now_is_shown_while_it_runs(engine: Path) -> None:
    with measured(engine) as served, served.connect() as client:
        client.sendall(raw_post(CHAT, chat(stream=True, fake={"stall_after": 1}), authorization="Bearer sk-mine"))
        wait_until(lambda: value(served, "appliance_requests_in_flight", model="tiny") == 1)
        client.close()
        wait_until(lambda: value(served, "appliance_requests_in_flight", model="tiny") == 0)
        assert value(served, "appliance_requests_total", model="tiny", status="200") == 1


def test_what_is_cut_by_the_end_of_its_engine_is_dropped_if_that_was_stopped_and_an_error_if_it_crashed(
    directory: Path,
) -> None:
    for stopped in (False, True):
        with fragile(directory) as (plain, where, process), serve(plain.state, metrics=True) as served:
            served.change(keys=(key("scraper", "sk-scraper", scopes=("metrics",)), key("mine", "sk-mine")))
            tiny = served.state.table.routes["tiny"]
            assert tiny is not None
            with ThreadPoolExecutor(1) as pool:
                headers = {"authorization": "Bearer sk-mine"}
                asked = pool.submit(served.ask, "POST", CHAT, chat(stream=True, fake={"stall_after": 1}), headers)
                wait_until(lambda where=where: stats(where)["running"] == 1)  # type: ignore[misc]
                tiny.lease.cut = stopped
                process.kill()
                assert b"engine_failed" in asked.result().content
            assert value(served, "appliance_dropped_requests_total") == stopped
            assert value(served, "appliance_errors_total", model="tiny", code="engine_failed") == 1


@pytest.mark.parametrize("accept", ["text/plain", OPENMETRICS, "", "*/*"])
def test_the_engines_own_metrics_carry_the_models_name(engine: Path, accept: str) -> None:
    with measured(engine) as served:
        ask(served)
        found = page(served, accept)
    family = found["vllm:request_success"]
    assert family.type == "counter"
    ((name, labels, count, *_),) = family.samples
    assert (name, labels["model"], labels["model_name"]) == ("vllm:request_success_total", "tiny", "tiny")
    assert count >= 1
    assert found["vllm:time_to_first_token_seconds"].type == "histogram"
    assert "python_info" not in found
    assert not any(name.endswith("_created") for name in found)


def test_engines_of_two_models_share_a_family(engine: Path, directory: Path) -> None:
    where = directory / "second.sock"
    with fake_engine(name="second", uds=where), measured(engine, second=route(where, "second")) as served:
        running = page(served)["vllm:num_requests_running"]
        assert {sample.labels["model"] for sample in running.samples} == {"tiny", "second"}
        assert value(served, "appliance_engine_scrape_success") == 2


@pytest.mark.parametrize("fault", ["hang", "error", "garbage", "endless"])
def test_an_engine_that_does_not_give_its_metrics_does_not_fail_the_page(
    engine: Path, directory: Path, fault: str
) -> None:
    where = directory / f"{fault}.sock"
    with fake_engine("--bad-metrics", fault, uds=where), measured(engine, bad=route(where, "bad")) as served:
        running = page(served)["vllm:num_requests_running"]
        assert {sample.labels["model"] for sample in running.samples} == {"tiny"}
        assert value(served, "appliance_engine_scrape_success", model="bad") == 0
        assert value(served, "appliance_engine_scrape_success", model="tiny") == 1


def test_an_engine_that_is_gone_does_not_fail_the_page(engine: Path, directory: Path) -> None:
    with measured(engine, gone=route(directory / "gone.sock", "gone")) as served:
        assert value(served, "appliance_engine_scrape_success", model="gone") == 0


def test_openmetrics_is_given_where_it_is_asked_for(engine: Path) -> None:
    with measured(engine) as served:
        ask(served)
        answer = served.ask("GET", "/metrics", headers={**SCRAPER, "accept": OPENMETRICS})
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert answer.content.endswith(b"# EOF\n")


def test_every_family_is_on_the_page_with_its_kind_and_words(engine: Path) -> None:
    with measured(engine) as served:
        ask(served)
        found = page(served)
    for family in FAMILIES:
        assert (found[family.name].type, found[family.name].documentation) == (family.kind, family.help)
    assert {name for name in found if name.startswith("appliance_")} == {family.name for family in FAMILIES}


def test_labels_are_those_of_the_table(engine: Path) -> None:
    with measured(engine) as served:
        ask(served, stream=True)
        found = page(served)
    for family in FAMILIES:
        for sample in found[family.name].samples:
            assert set(sample.labels) - {"le"} == set(family.labels)


def test_clients_cannot_make_series(engine: Path) -> None:
    with measured(engine) as served:
        for number in range(20):
            ask(served, model=f"made-up-{number}")
            served.ask("GET", f"/made/up/{number}")
            served.ask("POST", CHAT, chat(), {"authorization": f"Bearer sk-{number}", "x-request-id": f"id-{number}"})
        labels = {sample.labels["model"] for sample in page(served)["appliance_requests"].samples}
        assert labels == {""}
        assert len(page(served)["appliance_requests"].samples) < 8


def test_metrics_ask_for_their_scope_and_are_off_unless_switched_on(gateway: Served, engine: Path) -> None:
    assert gateway.ask("GET", "/metrics").status == 404
    with measured(engine) as served:
        assert served.ask("GET", "/metrics").status == 401
        refused = served.ask("GET", "/metrics", headers={"authorization": "Bearer sk-mine"})
        assert (refused.status, refused.error()["code"]) == (403, "insufficient_scope")


def test_nothing_of_a_prompt_or_a_key_is_on_the_page(engine: Path) -> None:
    with measured(engine) as served:
        ask(served, messages=[{"role": "user", "content": "a secret prompt"}])
        content = served.ask("GET", "/metrics", headers=SCRAPER).content
    assert b"secret" not in content
    assert b"sk-" not in content
    assert stats(engine)["requests"] > 0
