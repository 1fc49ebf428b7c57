"""What operators and users do in the console, in a browser without JavaScript."""

from __future__ import annotations

import html
import re
import time
from urllib.parse import urlencode

import msgspec
import pytest

from asgi_aiproxy import AdminApp, Ledger, MemoryStore, Principal, Tokens
from asgi_aiproxy.accounts import StoredTokenVerifier
from asgi_aiproxy.console import Console
from asgi_aiproxy.stores import Store
from tests.console.support import ORIGIN, ROOT, Answer, Browser, filled, record, root_of

pytestmark = pytest.mark.anyio


def secret_in(answer: Answer) -> str:
    found = re.search(r'<code id="secret">([^<]+)</code>', answer.text)
    assert found is not None, answer.text
    return found[1]


async def test_a_user_makes_rotates_and_removes_a_token() -> None:
    shop = await filled()
    browser = shop.browser("/x")
    await browser.sign_in(shop.secrets["ann"])
    page = (await browser.open("/my/tokens")).page
    made = await browser.submit(page.form("/my/tokens"), name="laptop", budgets="1/month")
    secret = secret_in(made)
    verify = StoredTokenVerifier(shop.store)
    principal = await verify(secret)
    assert principal is not None
    shown = await browser.open(f"/my/tokens/{principal.id}")
    assert secret not in shown.text
    assert "$1.00" in shown.text
    saved = await browser.submit(shown.page.form("/edit"), name="desktop")
    assert "Saved." in saved.text
    assert "desktop" in saved.text
    rotated = secret_in(await browser.submit(saved.page.form("/rotate"), grace="0"))
    assert await verify(secret) is None
    assert await verify(rotated) is not None
    removed = await browser.submit(saved.page.form("/remove"))
    assert "Removed." in removed.text
    assert await verify(rotated) is None


async def test_an_error_shows_the_form_again_with_what_was_entered() -> None:
    shop = await filled()
    browser = shop.browser()
    await browser.sign_in(shop.secrets["ann"])
    page = (await browser.open("/my/tokens")).page
    answer = await browser.submit(page.form("/my/tokens"), name="laptop", budgets="9/month")
    assert answer.status == 400
    assert 'role="alert"' in answer.text
    assert "budgets: 9/month is more than 5/month." in answer.text
    assert 'value="laptop"' in answer.text
    assert 'value="9/month"' in answer.text


async def test_an_operator_issues_and_disables_a_token() -> None:
    shop = await filled()
    browser = shop.browser()
    await browser.sign_in()
    page = (await browser.open("/tokens")).page
    form = page.form("/tokens")
    made = await browser.submit(
        form, name="dora", rpm="7", models="gpt-*, claude-*", account="acme"
    )
    principal = await StoredTokenVerifier(shop.store)(secret_in(made))
    assert principal is not None
    assert principal.models == ("gpt-*", "claude-*")
    assert principal.limits.rpm == 7
    shown = (await browser.open(f"/tokens/{principal.id}")).page
    disabled = await browser.submit(shown.form("/disable"))
    assert "disabled" in disabled.text
    assert not (await Tokens(shop.store).get(principal.id)).enabled
    enabled = await browser.submit(disabled.page.form("/enable"))
    cleared = await browser.submit(enabled.page.form("/edit"), rpm="", models="")
    assert cleared.status == 200
    row = await Tokens(shop.store).get(principal.id)
    assert (row.enabled, row.limits.rpm, row.models) == (True, None, ())


async def test_a_user_redeems_a_voucher_once() -> None:
    shop = await filled()
    browser = shop.browser()
    await browser.sign_in(shop.secrets["ben"])
    form = (await browser.open("/my/redeem")).page.form("/my/redeem")
    answer = await browser.submit(form, code=shop.secrets["code"])
    assert "The voucher was redeemed." in answer.text
    assert "$7.00" in answer.text
    again = await browser.submit(form, code=shop.secrets["code"])
    assert again.status == 409
    assert "already been redeemed" in again.text


async def test_an_operator_creates_exports_and_disables_vouchers() -> None:
    shop = await filled()
    browser = shop.browser()
    await browser.sign_in()
    page = (await browser.open("/vouchers")).page
    created = await browser.submit(page.form("/vouchers"), count="3", usd="2.5", name="spring")
    codes = re.search(r'<pre id="codes"[^>]*>([^<]+)</pre>', created.text)
    assert codes is not None
    assert len(codes[1].split()) == 3
    table = await browser.open("/vouchers.csv?name=spring")
    assert table.text.count("spring") == 3
    assert codes[1].split()[0] not in table.text
    disabled = await browser.submit((await browser.open("/vouchers")).page.form("/disable"))
    assert disabled.page.form("/enable")


async def test_an_operator_adds_changes_and_removes_a_key() -> None:
    shop = await filled()
    browser = shop.browser()
    await browser.sign_in()
    form = (await browser.open("/providers/openai")).page.form("/keys")
    added = await browser.submit(form, secret="sk-brand-new-secret", id="third", weight="2")
    assert "third" in added.text
    assert "sk-brand-new-secret" not in added.text
    page = (await browser.open("/providers/openai/keys/third")).page
    saved = await browser.submit(page.form("/edit"), secret="sk-another-secret", weight="3")
    assert "Saved." in saved.text
    assert "sk-another-secret" not in saved.text
    disabled = await browser.submit(saved.page.form("/disable"))
    assert disabled.page.form("/enable")
    form = (await browser.open("/providers/openai")).page.form("/import")
    assert "fifth" in (await browser.submit(form, lines="fourth sk-4444\nfifth sk-5555")).text
    bad = await browser.submit(form, lines="sixth sk-6666\nfourth sk-7777")
    assert bad.status == 400
    assert "line 2" in bad.text
    removed = await browser.submit(disabled.page.form("/remove"))
    assert "Removed." in removed.text
    assert "third" not in removed.text


async def test_groups_and_accounts_are_created_changed_and_removed() -> None:
    shop = await filled()
    browser = shop.browser()
    await browser.sign_in()
    form = (await browser.open("/groups")).page.form("/groups")
    await browser.submit(form, name="a b", ratio="0.5")
    assert (await browser.submit(form, name="gold", ratio="0.5", providers="openai")).status == 200
    page = (await browser.open("/groups/gold")).page
    assert "0.25" in (await browser.submit(page.form("/edit"), ratio="0.25", providers="")).text
    assert "Removed." in (await browser.submit(page.form("/remove"))).text
    form = (await browser.open("/accounts")).page.form("/accounts")
    await browser.submit(form, id="team", name="The team", budgets="25/month")
    page = (await browser.open("/accounts/team")).page
    assert "$50.00" in (await browser.submit(page.form("/edit"), budgets="50/month")).text
    assert "Enable" in (await browser.submit(page.form("/disable"))).text
    assert "Removed." in (await browser.submit(page.form("/remove"))).text


async def test_the_log_has_its_filters_in_the_url_and_pages_by_position() -> None:
    shop = await filled()
    async with Ledger(shop.store) as ledger:
        for number in range(10, 130):
            await ledger(record(shop, number, "cat", time.time(), "plain"))
    browser = shop.browser()
    await browser.sign_in()
    first = await browser.open("/log")
    assert first.text.count("<tr data-id") == 50
    [following] = [link for link in first.page.links if "after=" in link]
    second = await browser.get(following)
    assert not set(exchanges(first)) & set(exchanges(second))
    form = first.page.form("/log")
    failed = await browser.submit(form, state="failed")
    assert "state=failed" in failed.url
    assert [link for link in exchanges(failed) if "ann-2" in link]
    assert len(exchanges(failed)) == 1
    [link] = exchanges(failed)
    exchange = await browser.get(link)
    assert "refused plain" in exchange.text
    assert "main/1" in exchange.text
    assert "$0.012347" in exchange.text
    wrong = await browser.open("/log?since=yesterday")
    assert wrong.status == 400
    assert "must be a date" in wrong.text


def exchanges(answer: Answer) -> list[str]:
    return [link for link in answer.page.links if "near=" in link]


async def test_usage_has_charts_a_table_and_the_same_as_csv() -> None:
    shop = await filled()
    browser = shop.browser()
    await browser.sign_in()
    answer = await browser.open("/usage?by=principal")
    assert answer.text.count('<svg class="chart"') == 2
    assert 'role="img"' in answer.text
    assert "ann plain" in answer.text
    [link] = [link for link in answer.page.links if ".csv" in link]
    table = await browser.get(link)
    assert table.headers["content-type"] == ["text/csv; charset=utf-8"]
    lines = table.text.splitlines()
    assert lines[0].startswith("name,label,requests,failed,input,output,usd")
    assert len(lines) == 4
    own = shop.browser()
    await own.sign_in(shop.secrets["ann"])
    assert "$0.024692" in (await own.open("/my/usage")).text  # two calls: 12345 + 12347


async def test_get_started_waits_for_the_first_call(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = int(time.time()) + 0.9  # late in a second, which must not be rounded up
    monkeypatch.setattr(time, "time", lambda: opened)
    store = MemoryStore()
    console = Console(AdminApp(store, token=ROOT), gateway_url="../ai")
    shop = await filled(store)
    browser = Browser(console, "/x/console")
    await browser.sign_in(shop.secrets["cat"])
    page = await browser.open("/start?client=codex&model=smart")
    assert "https://gateway.test/x/ai/v1" in page.text
    assert "config.toml" in page.text
    [waiting] = page.page.refreshed
    assert f"since={int(opened)}" in waiting
    assert "Waiting for a call" in (await browser.get(waiting)).text
    async with Ledger(store) as ledger:
        await ledger(record(shop, 99, "cat", opened + 0.01, "plain"))
    seen = await browser.get(waiting)
    assert "It works." in seen.text
    assert seen.page.refreshed == []


async def test_the_first_page_shows_what_happens_in_all_workers(store: Store) -> None:
    shop = await filled(store)
    browser = shop.browser()
    answer = await browser.sign_in()
    assert "1 / 4" in answer.text  # failed of all
    assert "200 ms" in answer.text
    assert "refused plain" in answer.text


async def test_a_user_of_the_host_needs_no_sign_in_and_an_unknown_one_is_sent_to_the_hosts() -> (
    None
):
    users = {"ann": Principal("ann"), "olga": Principal("olga", scopes=("read",))}

    def identify(scope: object) -> Principal | None:
        headers = dict(scope["headers"])  # type: ignore[index]
        return users.get(headers.get(b"x-user", b"").decode())

    admin = AdminApp(MemoryStore(), token=ROOT)
    console = Console(admin, identify=identify, login_url="/login")
    browser = Browser(console, "/x")
    answer = await browser.send("GET", "/x/my/log?state=failed")
    assert answer.status == 303
    assert answer.headers["location"] == ["/login?next=%2Fx%2Fmy%2Flog%3Fstate%3Dfailed"]
    ann = await browser.send("GET", "/x/", headers={"x-user": "ann"})
    assert ann.status == 200
    assert "Sign out" not in ann.text
    assert (await browser.send("GET", "/x/tokens", headers={"x-user": "ann"})).status == 403
    olga = await browser.send("GET", "/x/tokens", headers={"x-user": "olga"})
    assert olga.status == 200
    assert 'action="/x/tokens"' not in olga.text  # it may read, not write
    assert (await browser.send("GET", "/x/sign-in")).status == 404


async def test_an_announcement_is_shown_to_all_until_it_is_removed() -> None:
    shop = await filled()
    browser = shop.browser()
    await browser.sign_in()
    form = (await browser.open("/announcements")).page.form("/announcements")
    await browser.submit(form, text="New models on Monday")
    await browser.submit(form, text="Not yet", since="2999-01-01T00:00")
    user = shop.browser()
    seen = (await user.sign_in(shop.secrets["ann"])).text
    assert "New models on Monday" in seen
    assert "Maintenance plain" in seen
    assert "Not yet" not in seen
    for link in (await browser.open("/announcements")).page.links:
        if re.fullmatch(r"/announcements/\w+", link):
            page = (await browser.get(link)).page
            saved = await browser.submit(page.form("/edit"), text="Changed text")
            assert "Changed text" in saved.text
            await browser.submit(page.form("/remove"))
    assert "Changed text" not in (await user.open("/")).text


async def test_models_without_a_price_are_listed() -> None:
    shop = await filled()
    async with Ledger(shop.store) as ledger:
        found = record(shop, 77, "cat", time.time(), "unknown")
        await ledger(msgspec.structs.replace(found, cost=None))
    browser = shop.browser()
    await browser.sign_in()
    text = (await browser.open("/prices")).text
    unpriced, _, others = text.partition('id="priced"')
    assert "model-unknown" in unpriced
    assert "model-plain" not in unpriced
    assert "model-plain" in others


async def test_what_happened_to_a_request_is_explained_step_by_step() -> None:
    shop = await filled()
    browser = shop.browser()
    await browser.sign_in()
    [link] = [each for each in (await browser.open("/log")).page.links if "ann-2" in each]
    page = await browser.get(link)
    [link] = [each for each in page.page.links if "/explain/request" in each]
    text = (await browser.get(link)).text
    assert "The response of openai broke off: refused plain" in text
    assert "main/1" in text
    missing = await browser.open("/explain?model=gpt-4o")
    assert missing.status == 501  # this AdminApp has no explain=


async def test_several_tokens_are_extended_disabled_and_removed_after_a_question() -> None:
    shop = await filled()
    tokens = Tokens(shop.store)
    await tokens.edit(shop.ids["ann"], expires=time.time() + 1000)
    browser = shop.browser("/x")
    await browser.sign_in()

    async def apply(ids: list[str], **fields: str) -> Answer:
        form = (await browser.open("/tokens")).page.form("/tokens/selection")
        given = [(name, value) for name, value in form.fields if name not in fields]
        body = urlencode([*given, *fields.items(), *(("ids", id) for id in ids)]).encode()
        headers = {"sec-fetch-site": "same-origin", "origin": ORIGIN}
        answer = await browser.send("POST", form.action, body, headers)
        return answer if answer.status != 303 else await browser.get(answer.headers["location"][0])

    ann, ben = shop.ids["ann"], shop.ids["ben"]
    assert "Saved." in (await apply([ann, ben], action="extend", days="10")).text
    expires = (await tokens.get(ann)).expires
    assert expires is not None
    assert 9 * 86400 < expires - time.time() < 11 * 86400
    assert (await tokens.get(ben)).expires is None  # it never expires
    assert "Saved." in (await apply([ann, ben], action="disable")).text
    assert [(await tokens.get(id)).enabled for id in (ann, ben)] == [False, False]
    question = await apply([ann, "missing"], action="revoke")
    assert "Remove 2 rows?" in question.text
    assert await tokens.get(ann)
    confirmed = question.page.form("/tokens/selection")
    headers = {"sec-fetch-site": "same-origin", "origin": ORIGIN}
    body = urlencode(confirmed.fields).encode()
    done = await browser.send("POST", confirmed.action, body, headers)
    assert "1 of 2 were not changed. missing:" in html.unescape(done.text)
    assert await tokens.table.find(ann) is None
    assert await tokens.table.find(ben) is not None
    assert (await apply([], action="disable")).status == 400


async def test_several_keys_are_disabled_and_removed() -> None:
    shop = await filled()
    root = await root_of(shop)
    keys = {"ids": ["added", "main/1"], "action": "disable"}
    found = await root("POST /providers/{provider}/bulk", provider="openai", body=keys)
    assert found.done == ["added", "main/1"]
    browser = shop.browser()
    await browser.sign_in()
    form = (await browser.open("/providers/openai")).page.form("/providers/openai/selection")
    question = await browser.submit(form, ids="added", action="remove")
    text = (await browser.submit(question.page.form("/selection"))).text
    assert "Removed." in text
    assert "/keys/added" not in text
    assert "disabled" in text


async def test_usage_is_compared_with_the_days_before() -> None:
    shop = await filled()
    async with Ledger(shop.store) as ledger:
        for age, number in ((0, 200), (30, 201), (30, 202)):
            found = record(shop, number, "cat", time.time() - age * 86400, "plain")
            await ledger(msgspec.structs.replace(found, upstream_model="compared", cost=1_000_000))
    browser = shop.browser()
    await browser.sign_in()
    page = await browser.open("/usage?by=model&compare=yes")
    row = page.text.partition(">compared</a>")[2].partition("</tr>")[0]
    assert re.findall(r">(\$1.00|\$2.00|-50 %)<", row) == ["$1.00", "$2.00", "-50 %"]
    assert 'class="before"' in page.text  # in the chart
    root = await root_of(shop)
    pairs = (await root("GET /usage/compare", query={"by": "day"})).data
    assert sum(pair.before.usd for pair in pairs if pair.now.requests) == 2
    user = shop.browser()
    await user.sign_in(shop.secrets["cat"])
    assert "compared with" in (await user.open("/my/usage?compare=yes")).text


@pytest.mark.parametrize(
    ("path", "field", "text"),
    [
        ("/tokens", "rpm", "-1"),
        ("/tokens", "networks", "not valid"),
        ("/groups", "ratio", "much"),
        ("/accounts", "budgets", "a lot"),
        ("/vouchers", "usd", "0"),
    ],
)
async def test_an_error_is_shown_beside_its_field_which_has_the_focus(
    path: str, field: str, text: str
) -> None:
    shop = await filled()
    browser = shop.browser()
    await browser.sign_in()
    form = (await browser.open(path)).page.form(path)
    shown = await browser.submit(form, **{field: text, "name": "new", "id": "new"})
    assert shown.status == 400
    inputs = re.findall(r"<input[^>]*aria-invalid[^>]*>", shown.text)
    assert len(inputs) == 1
    assert f'name="{field}"' in inputs[0]
    assert f'value="{text}"' in inputs[0]
    assert "autofocus" in inputs[0]
    described = re.findall(r'aria-describedby="(\S*)', inputs[0])[0]
    message = re.findall(rf'id="{described}" class="wrong">([^<]+)<', shown.text)[0]
    assert message in re.findall(r'role="alert">([^<]+)<', shown.text)[0]
    assert "<details>" not in shown.text  # none that is closed could hide the field


async def test_an_operator_raises_a_budget_for_some_time_and_gets_a_statement() -> None:
    shop = await filled()
    browser = shop.browser()
    await browser.sign_in()
    for path, before, after in (
        (f"/tokens/{shop.ids['ben']}", "of $3.00", "of $5.50"),
        ("/accounts/acme", "of $9.00", "of $11.50"),
    ):
        page = await browser.open(path)
        assert before in page.text
        form = page.page.form("/raise")
        assert (await browser.submit(form, budget="usd total", days="7", amount="-1")).status == 400
        assert (await browser.submit(form, budget="x", days="7", amount="1")).status == 400
        shown = await browser.submit(form, budget="usd total", days="7", amount="2.5")
        assert after in shown.text
        assert "raised by $2.50" in shown.text
    form = (await browser.open("/accounts/acme")).page.form("/statement.csv")
    table = await browser.submit(form)
    assert table.headers["content-type"] == ["text/csv; charset=utf-8"]
    assert "model-plain" in table.text
    assert (await browser.submit(form, month="soon")).status == 400
