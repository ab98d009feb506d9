"""The page `/ui` in a real browser: what it shows, what it does, and who may."""

from __future__ import annotations

import json
import re

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from appliance.gateway.keys import new_key
from tests.browser.conftest import Viewer
from tests.cli.conftest import Machine
from tests.support import wait_until

VIEWS = ("overview", "chat", "history", "logs", "keys")


def ask(page: Page, text: str) -> None:
    page.get_by_label("Message").fill(text)
    page.keyboard.press("Enter")


def test_it_shows_every_model_with_its_state_and_reasons(still: str, viewer: Viewer) -> None:
    with viewer.open(still) as page:
        ready = page.get_by_role("article", name="tiny")
        expect(ready).to_contain_text("EngineReady")
        expect(page.get_by_role("article", name="later")).to_contain_text("the first request starts one")
        expect(page.locator("#tiles")).to_contain_text("1 of 2")
        expect(page.locator("#connection")).to_have_text("Live")
        expect(page.locator("#plot-memory .value")).to_contain_text("MiB")
        assert "taken" in (page.locator("#plot-memory svg").get_attribute("aria-label") or "")


def test_a_rollout_is_shown_step_by_step_while_it_happens(machine: Machine, viewer: Viewer) -> None:
    machine.write()
    base = machine.up()
    with viewer.open(base) as page:
        expect(page.locator("#tiles")).to_contain_text("1 of 1")
        gate = machine.directory / "gate"
        machine.write("--gate", str(gate))
        steps = page.get_by_role("list", name="Steps of tiny").get_by_role("listitem")
        expect(page.get_by_text("Prove it and move traffic")).to_have_count(1)
        expect(page.locator(".steps .now")).to_have_text("•Prove it and move traffic")
        expect(page.locator("#rollout-state")).to_contain_text("under way")
        expect(page.get_by_role("article", name="tiny")).to_contain_text("PreviousRevision")
        gate.touch()
        expect(page.locator("#rollout-state")).to_contain_text("ready")
        expect(steps).to_have_count(5)
        expect(page.locator(".steps .done")).to_have_count(5)
        assert [each.split("done")[0].lstrip("✓") for each in steps.all_text_contents()] == [
            "Start the new engine",
            "Get memory",
            "Prove it and move traffic",
            "Drain the old engine",
            "Stop the old engine",
        ]


def test_a_rollout_that_fails_says_why_and_that_the_old_engine_goes_on(machine: Machine, viewer: Viewer) -> None:
    machine.write()
    with viewer.open(machine.up()) as page:
        expect(page.locator("#tiles")).to_contain_text("1 of 1")
        machine.write("--exit-at-start", "--exit-code", "3", "--say", "RuntimeError: no such kernel")
        expect(page.locator("#rollout-state")).to_contain_text("degraded")
        expect(page.locator(".steps .failed")).to_contain_text("no such kernel")
        expect(page.get_by_role("article", name="tiny")).to_contain_text("Degraded")
        expect(page.get_by_role("article", name="tiny")).to_contain_text("PreviousRevision")


def test_a_file_that_cannot_be_used_is_a_notice_until_it_can(machine: Machine, viewer: Viewer) -> None:
    machine.write()
    with viewer.open(machine.up()) as page:
        expect(page.locator("#tiles")).to_contain_text("1 of 1")
        good = machine.file.read_text()
        machine.file.write_text(good.replace("source:", "sorce:"))
        expect(page.locator("#notices")).to_contain_text("did you mean source?")
        machine.file.write_text(good)
        expect(page.locator("#notices")).not_to_contain_text("sorce")


def test_an_answer_is_shown_as_it_is_streamed_and_can_be_stopped(machine: Machine, viewer: Viewer) -> None:
    machine.write("--events", "400", "--event-interval", "0.05")
    with viewer.open(machine.up(), "chat/tiny") as page:
        ask(page, "what is the capital of France?")
        answer = page.locator(".message.writing .body")
        expect(answer).to_contain_text("tiny answers")
        early = answer.inner_text()
        page.wait_for_function(
            "early => document.querySelector('.message.writing .body').innerText.length > early.length + 20", arg=early
        )
        page.get_by_role("button", name="Stop").click()
        expect(page.locator(".message.writing")).to_have_count(0)
        expect(page.locator("#figures")).to_contain_text("tokens/s")
        wait_until(lambda: '"aborted": true' in machine.log, what="the generation is aborted")
        expect(page.get_by_role("button", name="Send")).to_be_enabled()


def test_a_conversation_goes_on_and_its_requests_are_in_the_plots(still: str, viewer: Viewer) -> None:
    with viewer.open(still, "chat/tiny") as page:
        ask(page, "first words")
        expect(page.locator(".message.user + .message .body")).to_contain_text("first words")
        expect(page.locator(".message.writing")).to_have_count(0)
        ask(page, "second words")
        expect(page.locator(".message .body").last).to_contain_text("second words")
        page.get_by_role("link", name="Overview").click()
        expect(page.locator("#plot-tokens svg")).to_have_attribute("aria-label", re.compile(r"at most [1-9]"))


def test_what_a_model_writes_is_text_and_never_markup(still: str, viewer: Viewer) -> None:
    hostile = "<img/src=x/onerror=alert(1)><script>document.title='owned'</script>"
    with viewer.open(still, "chat/tiny") as page:
        ask(page, hostile)
        expect(page.locator(".message.user + .message .body")).to_contain_text(hostile)
        assert page.locator("#messages img, #messages script").count() == 0
        assert "owned" not in page.title()


def test_rolling_back_asks_first_and_writes_the_old_file(machine: Machine, viewer: Viewer) -> None:
    machine.write()
    with viewer.open(machine.up(), "history") as page:
        expect(page.get_by_role("row")).to_have_count(2)
        good = machine.file.read_text()
        machine.write(models="  tiny: {source: ./weights, aliases: [changed]}")
        expect(page.get_by_role("row").nth(1)).to_contain_text("models.tiny.aliases")
        page.get_by_role("button", name="What generation 2 changed").click()
        expect(page.locator("#difference-text .plus")).to_have_text("+  tiny: {source: ./weights, aliases: [changed]}")
        back = page.get_by_role("button", name="Roll back to generation 1")
        back.click()
        dialog = page.get_by_role("dialog", name="Roll back to generation 1?")
        expect(dialog.locator(".minus")).to_have_text("-  tiny: {source: ./weights, aliases: [changed]}")
        page.keyboard.press("Escape")
        expect(dialog).to_be_hidden()
        assert "changed" in machine.file.read_text()
        back.click()
        dialog.get_by_role("button", name="Roll back").click()
        expect(page.locator("#notices")).to_contain_text("Generation 1 was written back")
        wait_until(lambda: machine.file.read_text() == good, what="the file is as it was")
        expect(page.locator("#tiles")).to_contain_text("3")
        assert machine.status()["generation"] == 3


ADMIN, ADMIN_DIGEST = new_key()
GUEST, GUEST_DIGEST = new_key()
KEYS = (
    f"auth: {{keys: [{{name: boss, sha256: {ADMIN_DIGEST}, scopes: [admin]}}, "
    f"{{name: guest, sha256: {GUEST_DIGEST}, limits: {{requests_per_minute: 60}}, expires: '2099-01-01'}}]}}\n"
)


def test_with_keys_one_signs_in_and_the_key_stays_in_the_tab(machine: Machine, viewer: Viewer) -> None:
    machine.write(more=KEYS)
    with viewer.open(machine.up()) as page:
        field = page.get_by_label("API key with the scope admin")
        expect(field).to_be_focused()
        assert _violations(Axe(), page) == []
        for wrong, why in (("nonsense", "not known here"), (GUEST, "does not have the scope `admin`")):
            field.fill(wrong)
            page.keyboard.press("Enter")
            expect(page.get_by_role("alert")).to_contain_text(why)
        field.fill(ADMIN)
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("article", name="tiny")).to_contain_text("EngineReady")
        assert ADMIN not in page.url
        assert page.context.cookies() == []
        assert page.evaluate("JSON.stringify(localStorage)") == "{}"
        page.get_by_role("link", name="Keys", exact=True).click()
        expect(page.get_by_role("row", name="guest")).to_contain_text("60 requests per minute")
        expect(page.get_by_role("row", name="guest").get_by_role("cell").first).to_have_text("inference")
        assert ADMIN_DIGEST not in page.content()
        page.get_by_role("link", name="Playground", exact=True).click()
        ask(page, "may I?")
        expect(page.get_by_role("alert").last).to_contain_text("Give another key")
        page.get_by_label("Another key").fill(GUEST)
        ask(page, "and now?")
        expect(page.locator(".message .body").last).to_contain_text("and now?")
        page.get_by_role("button", name="Sign out").click()
        expect(field).to_be_visible()
        assert page.evaluate("JSON.stringify(sessionStorage)") == "{}"
    # A browser reports every answer of 401 and 403 by itself; anything else is still a complaint.
    viewer.complaints[:] = [each for each in viewer.complaints if "status of 40" not in each]


def test_a_key_that_is_revoked_leads_back_to_the_form(machine: Machine, viewer: Viewer) -> None:
    machine.write(more=KEYS)
    base = machine.up()
    with viewer.open(base) as page:
        page.get_by_label("API key with the scope admin").fill(ADMIN)
        page.keyboard.press("Enter")
        expect(page.locator("#connection")).to_have_text("Live")
        machine.write(more=f"auth: {{keys: [{{name: guest, sha256: {GUEST_DIGEST}}}]}}\n")
        expect(page.get_by_label("API key with the scope admin")).to_be_visible()
    # The stream that ends in the middle is an error to the browser, too.
    viewer.complaints[:] = [each for each in viewer.complaints if "status of 40" not in each and "net::ERR" not in each]


def test_it_finds_its_way_back_after_a_restart(machine: Machine, viewer: Viewer) -> None:
    machine.write()
    with viewer.open(machine.up()) as page:
        expect(page.locator("#connection")).to_have_text("Live")
        before = page.evaluate("performance.timeOrigin")
        assert machine.run("restart").returncode == 0
        machine.write(models="  tiny: {source: ./weights, aliases: [again]}")
        expect(page.locator("#rollout")).to_contain_text("models.tiny.aliases")
        expect(page.locator("#connection")).to_have_text("Live")
        assert page.evaluate("performance.timeOrigin") == before
    viewer.complaints[:] = [each for each in viewer.complaints if "net::ERR" not in each]


def test_it_asks_nobody_but_the_appliance(still: str, viewer: Viewer) -> None:
    with viewer.open(still) as page:
        for view in VIEWS:
            page.goto(f"{still}/ui#/{view}/tiny")
            expect(page.locator(f"#{view} h1")).to_be_visible()
    assert viewer.asked == {still}


def test_logs_are_followed_and_filtered(still: str, viewer: Viewer) -> None:
    with viewer.open(still, "logs/tiny") as page:
        expect(page.locator("#log")).to_contain_text("the kettle is on")
        page.get_by_label("Only lines with").fill("milk")
        expect(page.locator("#log")).not_to_contain_text("kettle")
        expect(page.locator("#log-count")).to_have_text("1 line")


def test_it_is_dark_where_the_system_is_and_where_one_says_so(still: str, viewer: Viewer) -> None:
    ground = "getComputedStyle(document.documentElement).backgroundColor"
    with viewer.open(still, color_scheme="light") as page:
        light = page.evaluate(ground)
        page.get_by_role("button", name="Theme: system").click()
        page.get_by_role("button", name="Theme: light").click()
        dark = page.evaluate(ground)
        page.reload()
        assert page.evaluate(ground) == dark != light
    with viewer.open(still, color_scheme="dark") as page:
        assert page.evaluate(ground) == dark


def test_it_is_used_with_the_keyboard_alone(still: str, viewer: Viewer) -> None:
    with viewer.open(still) as page:
        expect(page.locator("#connection")).to_have_text("Live")
        page.keyboard.press("Tab")
        expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
        for _ in range(2):
            page.keyboard.press("Tab")
        expect(page.get_by_role("link", name="Playground", exact=True)).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.get_by_label("Message")).to_be_focused()
        page.keyboard.type("hello there")
        page.keyboard.press("Enter")
        expect(page.locator(".message .body").last).to_contain_text("hello there")
        expect(page.get_by_label("Message")).to_be_focused()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_view_passes_the_accessibility_rules(still: str, viewer: Viewer, scheme: str) -> None:
    axe = Axe()
    found = {}
    with viewer.open(still, color_scheme=scheme) as page:
        for view in VIEWS:
            page.goto(f"{still}/ui#/{view}/tiny")
            expect(page.locator(f"#{view} h1")).to_be_visible()
            if view == "chat":
                ask(page, "hello")
                expect(page.locator(".message .body").last).to_contain_text("hello")
            found[view] = _violations(axe, page)
    assert found == {view: [] for view in VIEWS}


def _violations(axe: Axe, page: Page) -> list[str]:
    response = axe.run(page).response
    return [
        f"{each['id']}: {json.dumps([node['html'][:120] for node in each['nodes']])}" for each in response["violations"]
    ]
