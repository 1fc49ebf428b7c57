"""Answers of One API, request by request, as the program itself gives them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.compat.answer_cases import Case, problems
from tests.compat.oneapi_client import ROOT, OneAPI
from tests.support import asgi_client as asgi
from tests.support.compat_vendors import Vendors

pytestmark = pytest.mark.anyio

OK = {"success": True, "message": ""}
FAIL = {"success": False, "message": str}
ERROR = {"error": {"message": str, "type": "one_api_error"}}


def ok(data: Any = ...) -> dict[str, Any]:
    return OK if data is ... else {**OK, "data": data}


def error(**members: Any) -> dict[str, Any]:
    return {"error": {**ERROR["error"], **members}}


USER_ROW = {"id": int, "username": str, "display_name": str, "role": int, "status": int,
            "email": "", "github_id": "", "wechat_id": "", "quota": int, "used_quota": int,
            "request_count": int, "group": "default", "aff_code": str, "password": ""}  # fmt: skip
TOKEN_ROW = {"id": int, "user_id": int, "key": str, "status": int, "name": str,
             "created_time": int, "accessed_time": int, "expired_time": int, "remain_quota": int,
             "unlimited_quota": bool, "used_quota": int}  # fmt: skip
CHANNEL_ROW = {"id": int, "type": int, "key": "", "status": int, "name": str, "weight": int,
               "created_time": int, "test_time": int, "response_time": int, "base_url": str,
               "other": (str, None), "balance": float, "balance_updated_time": int, "models": str,
               "group": str, "used_quota": int, "model_mapping": (str, None),
               "priority": int}  # fmt: skip
CODE_ROW = {"id": int, "user_id": 1, "key": str, "status": int, "name": str, "quota": int,
            "created_time": int, "redeemed_time": int}  # fmt: skip
LOG_ROW = {"id": int, "user_id": int, "created_at": int, "type": int, "content": str,
           "username": str, "token_name": str, "model_name": str, "quota": int,
           "prompt_tokens": int, "completion_tokens": int, "channel": int}  # fmt: skip
MODEL = {"id": str, "object": "model", "created": int, "owned_by": str, "root": str,
         "parent": None, "permission": list}  # fmt: skip
LOGIN = {"username": "alice", "password": "password-1"}
CHANNEL = {"type": 1, "key": "sk-a", "name": "first", "models": "gpt-4,gpt-3.5-turbo",
           "group": "default"}  # fmt: skip
TOKEN = {"name": "mine", "remain_quota": 5000, "expired_time": -1, "unlimited_quota": False}
CHAT = {"model": "gpt-4", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 5}

PUBLIC = [
    Case("", "GET /api/status", "", 200, ok({
        "version": str, "start_time": int, "email_verification": False, "github_oauth": False,
        "github_client_id": "", "system_name": "One API", "logo": "", "footer_html": "",
        "wechat_qrcode": "", "wechat_login": False, "server_address": str,
        "turnstile_check": False, "turnstile_site_key": "", "top_up_link": "", "chat_link": "",
        "quota_per_unit": 500000, "display_in_currency": True, "lark_client_id": "",
        "oidc": False})),
    Case("", "GET /api/notice", "", 200, ok("")),
    Case("", "GET /api/about", "", 200, ok("")),
    Case("", "GET /api/home_page_content", "", 200, ok("")),
    Case("", "GET /api/verification", "", 200, FAIL),
    Case("", "GET /api/verification?email=no-address", "", 200, FAIL),
    Case("", "GET /api/reset_password?email=missing@example.com", "", 200, FAIL),
    Case("", "POST /api/user/reset", {"email": "a@example.com", "token": "x"}, 200, FAIL),
    Case("", "POST /api/user/reset", {}, 200, FAIL),
    Case("", "GET /api/oauth/github?code=x", "", (200, 403), FAIL),
    Case("", "GET /api/oauth/wechat?code=x", "", 200, FAIL),
    Case("", "GET /api/none", "", 404, {"error": {"message": str}}),
    Case("", "POST /api/status", {}, 404, {"error": {"message": str}}),
    Case("", "POST /api/user/login", LOGIN, 200, FAIL),
    Case("", "POST /api/user/login", {}, 200, FAIL),
    Case("", "POST /api/user/login", {"username": "root"}, 200, FAIL),
    Case("", "POST /api/user/login", b"not json", 200, FAIL),
    Case("", "POST /api/user/register", {"username": "alice"}, 200, FAIL),
    Case("", "POST /api/user/register", {"username": "alice", "password": "short"}, 200, FAIL),
    Case("", "POST /api/user/register", {"username": "alice", "password": "p" * 21}, 200, FAIL),
    Case("", "POST /api/user/register", {**LOGIN, "username": "a" * 13}, 200, FAIL),
    Case("", "POST /api/user/register", b"{", 200, FAIL),
    Case("", "POST /api/user/register", LOGIN, 200, OK),
    Case("", "POST /api/user/register", LOGIN, 200, FAIL),
    Case("", "POST /api/user/login", {**LOGIN, "password": "password-2"}, 200, FAIL),
    Case("", "POST /api/user/login", LOGIN, 200, ok({
        "id": 2, "username": "alice", "display_name": "alice", "role": 1, "status": 1})),
    Case("", "GET /api/user/logout", "", 200, OK),
    *[Case("", request, "", 401, FAIL) for request in (
        "GET /api/user/self", "PUT /api/user/self", "DELETE /api/user/self", "GET /api/user/token",
        "GET /api/user/aff", "POST /api/user/topup", "GET /api/user/", "GET /api/user/1",
        "GET /api/user/search", "POST /api/user/", "POST /api/user/manage", "PUT /api/user/",
        "DELETE /api/user/1", "GET /api/option/", "PUT /api/option/", "GET /api/channel/",
        "GET /api/channel/search", "GET /api/channel/models", "GET /api/channel/1",
        "GET /api/channel/test", "GET /api/channel/test/1", "GET /api/channel/update_balance",
        "POST /api/channel/", "PUT /api/channel/", "DELETE /api/channel/1", "GET /api/token/",
        "GET /api/token/search", "GET /api/token/1", "POST /api/token/", "PUT /api/token/",
        "DELETE /api/token/1", "GET /api/redemption/", "GET /api/redemption/search",
        "GET /api/redemption/1", "POST /api/redemption/", "PUT /api/redemption/",
        "DELETE /api/redemption/1", "GET /api/log/", "GET /api/log/stat", "GET /api/log/search",
        "GET /api/log/self", "GET /api/log/self/stat", "GET /api/log/self/search",
        "DELETE /api/log/", "GET /api/group/", "GET /api/models", "POST /api/topup",
        "GET /api/user/dashboard", "GET /api/user/available_models",
        "DELETE /api/channel/disabled", "GET /api/oauth/email/bind", "GET /api/oauth/wechat/bind")],
    Case("wrong", "GET /api/user/self", "", 200, FAIL),
    Case("Bearer wrong", "GET /api/user/self", "", 200, FAIL),
]  # fmt: skip

USERS = [
    Case("alice", "GET /api/user/self", "", 200, ok({
        **USER_ROW, "id": 2, "username": "alice", "role": 1, "status": 1})),
    Case("root", "GET /api/user/self", "", 200, ok({
        **USER_ROW, "id": 1, "username": "root", "role": 100})),
    Case("alice", "PUT /api/user/self", {
        "username": "alice", "display_name": "Alice A."}, 200, OK),
    Case("alice", "GET /api/user/self", "", 200, ok({
        "username": "alice", "display_name": "Alice A."})),
    Case("alice", "PUT /api/user/self", {"username": "a" * 13}, 200, FAIL),
    Case("alice", "PUT /api/user/self", {"username": "alice", "password": "short"}, 200, FAIL),
    Case("alice", "PUT /api/user/self", b"[", 200, FAIL),
    Case("alice", "PUT /api/user/self", {"username": "alice", "password": "password-2"}, 200, OK),
    Case("", "POST /api/user/login", {"username": "alice", "password": "password-2"}, 200, OK),
    Case("alice", "GET /api/user/aff", "", 200, ok(str)),
    Case("alice", "GET /api/user/", "", 200, FAIL),
    Case("alice", "GET /api/user/2", "", 200, FAIL),
    Case("alice", "POST /api/user/", {"username": "x", "password": "password-1"}, 200, FAIL),
    Case("alice", "POST /api/topup", {"user_id": 2, "quota": 5}, 200, FAIL),
    Case("alice", "GET /api/user/dashboard", "", 200, OK),
    Case("alice", "GET /api/user/available_models", "", 200, ok(list)),
    Case("bob", "GET /api/user/", "", 200, ok([{"id": 3}, {"id": 2}, {"id": 1}])),
    Case("bob", "GET /api/user/?p=0", "", 200, ok([
        USER_ROW, USER_ROW, USER_ROW])),
    Case("bob", "GET /api/user/?p=1", "", 200, ok([])),
    Case("bob", "GET /api/user/?order=quota", "", 200, ok([{"id": 1}, ..., ...])),
    Case("bob", "GET /api/user/?order=unknown", "", 200, ok([{"id": 3}, ..., ...])),
    Case("bob", "GET /api/user/?p=-1", "", 200, ok([{"id": 3}, {"id": 2}, {"id": 1}])),
    Case("bob", "GET /api/user/?p=x", "", 200, ok([{"id": 3}, {"id": 2}, {"id": 1}])),
    Case("bob", "GET /api/user/search?keyword=ali", "", 200, ok([{"username": "alice"}])),
    Case("bob", "GET /api/user/search?keyword=2", "", 200, ok([{"username": "alice"}])),
    Case("bob", "GET /api/user/search?keyword=zzz", "", 200, ok([])),
    Case("bob", "GET /api/user/2", "", 200, ok({**USER_ROW, "username": "alice"})),
    Case("bob", "GET /api/user/1", "", 200, FAIL),
    Case("bob", "GET /api/user/3", "", 200, FAIL),
    Case("bob", "GET /api/user/99", "", 200, FAIL),
    Case("bob", "GET /api/user/two", "", 200, FAIL),
    Case("root", "GET /api/user/1", "", 200, ok({"username": "root"})),
    Case("bob", "POST /api/user/", {"username": "carol"}, 200, FAIL),
    Case("bob", "POST /api/user/", {"password": "password-1"}, 200, FAIL),
    Case("bob", "POST /api/user/", {
        "username": "carol", "password": "password-1", "role": 10}, 200, FAIL),
    Case("bob", "POST /api/user/", {"username": "a" * 13, "password": "password-1"}, 200, FAIL),
    Case("bob", "POST /api/user/", {"username": "carol", "password": "short"}, 200, FAIL),
    Case("bob", "POST /api/user/", {
        "username": "carol", "password": "password-1", "display_name": "C."}, 200, OK),
    Case("bob", "POST /api/user/", {"username": "carol", "password": "password-1"}, 200, FAIL),
    Case("bob", "GET /api/user/4", "", 200, ok({
        "username": "carol", "display_name": "C.", "role": 1, "status": 1, "group": "default"})),
    Case("bob", "PUT /api/user/", {"id": 4, "quota": 777, "group": "vip"}, 200, OK),
    Case("bob", "GET /api/user/4", "", 200, ok({"quota": 777, "group": "vip"})),
    Case("bob", "PUT /api/user/", {"id": 4, "quota": 0}, 200, OK),
    Case("bob", "GET /api/user/4", "", 200, ok({"quota": 777})),
    Case("bob", "PUT /api/user/", {"quota": 5}, 200, FAIL),
    Case("bob", "PUT /api/user/", {"id": 99, "quota": 5}, 200, FAIL),
    Case("bob", "PUT /api/user/", {"id": 1, "quota": 5}, 200, FAIL),
    Case("bob", "PUT /api/user/", {"id": 4, "role": 10}, 200, FAIL),
    Case("bob", "PUT /api/user/", {"id": 4, "username": "a" * 13}, 200, FAIL),
    Case("bob", "PUT /api/user/", {"id": 4, "password": "short"}, 200, FAIL),
    Case("bob", "PUT /api/user/", b"{", 200, FAIL),
    Case("bob", "PUT /api/user/", {"id": 4, "password": "password-9"}, 200, OK),
    Case("", "POST /api/user/login", {"username": "carol", "password": "password-9"}, 200, OK),
    Case("bob", "POST /api/topup", {"user_id": 4, "quota": 23, "remark": "gift"}, 200, OK),
    Case("bob", "GET /api/user/4", "", 200, ok({"quota": 800})),
    Case("bob", "POST /api/user/manage", {"username": "missing", "action": "disable"}, 200, FAIL),
    Case("bob", "POST /api/user/manage", {"username": "root", "action": "disable"}, 200, FAIL),
    Case("root", "POST /api/user/manage", {"username": "root", "action": "disable"}, 200, FAIL),
    Case("root", "POST /api/user/manage", {"username": "root", "action": "delete"}, 200, FAIL),
    Case("root", "POST /api/user/manage", {"username": "root", "action": "demote"}, 200, FAIL),
    Case("bob", "POST /api/user/manage", {"username": "carol", "action": "promote"}, 200, FAIL),
    Case("bob", "POST /api/user/manage", b"{", 200, FAIL),
    Case("bob", "POST /api/user/manage", {"username": "carol", "action": "disable"}, 200, ok({
        "status": 2, "role": 1})),
    Case("", "POST /api/user/login", {"username": "carol", "password": "password-9"}, 200, FAIL),
    Case("bob", "POST /api/user/manage", {"username": "carol", "action": "enable"}, 200, ok({
        "status": 1})),
    Case("root", "POST /api/user/manage", {"username": "carol", "action": "promote"}, 200, ok({
        "role": 10})),
    Case("root", "POST /api/user/manage", {"username": "carol", "action": "promote"}, 200, FAIL),
    Case("root", "POST /api/user/manage", {"username": "carol", "action": "demote"}, 200, ok({
        "role": 1})),
    Case("root", "POST /api/user/manage", {"username": "carol", "action": "demote"}, 200, FAIL),
    Case("bob", "DELETE /api/user/1", "", 200, FAIL),
    Case("bob", "DELETE /api/user/x", "", 200, FAIL),
    Case("bob", "DELETE /api/user/4", "", 200, None),
    Case("", "POST /api/user/login", {"username": "carol", "password": "password-9"}, 200, FAIL),
    Case("bob", "GET /api/user/search?keyword=carol", "", 200, ok([])),
    Case("root", "DELETE /api/user/self", "", 200, FAIL),
    Case("alice", "DELETE /api/user/self", "", 200, OK),
    Case("alice", "GET /api/user/self", "", 200, FAIL),
]  # fmt: skip

TOKENS = [
    Case("alice", "GET /api/token/", "", 200, ok([{
        **TOKEN_ROW, "user_id": 2, "name": "default"}])),
    Case("alice", "POST /api/token/", TOKEN, 200, ok({**TOKEN_ROW, "name": "mine"})),
    Case("alice", "GET /api/token/?p=0", "", 200, ok([
        {**TOKEN_ROW, "name": "mine", "status": 1, "remain_quota": 5000, "expired_time": -1,
         "unlimited_quota": False, "used_quota": 0}, {"name": "default"}])),
    Case("alice", "GET /api/token/?p=1", "", 200, ok([])),
    Case("alice", "GET /api/token/?order=remain_quota", "", 200, ok([{"name": "mine"}, ...])),
    Case("alice", "POST /api/token/", {**TOKEN, "name": "n" * 30}, 200, OK),
    Case("alice", "POST /api/token/", {**TOKEN, "name": "n" * 31}, 200, FAIL),
    Case("alice", "POST /api/token/", b"{", 200, FAIL),
    Case("alice", "POST /api/token/", {**TOKEN, "remain_quota": "many"}, 200, FAIL),
    Case("alice", "POST /api/token/", {**TOKEN, "subnet": "no network"}, 200, FAIL),
    Case("alice", "POST /api/token/", {
        **TOKEN, "name": "net", "subnet": "10.0.0.0/8", "models": "gpt-4"}, 200, ok({
            "subnet": "10.0.0.0/8", "models": "gpt-4"})),
    Case("alice", "GET /api/token/search?keyword=mi", "", 200, ok([{"name": "mine"}])),
    Case("alice", "GET /api/token/search?keyword=zz", "", 200, ok([])),
    Case("alice", "GET /api/token/{mine}", "", 200, ok({**TOKEN_ROW, "name": "mine"})),
    Case("bob", "GET /api/token/{mine}", "", 200, FAIL),
    Case("alice", "GET /api/token/999", "", 200, FAIL),
    Case("alice", "GET /api/token/x", "", 200, FAIL),
    Case("alice", "PUT /api/token/", {
        "id": "{mine}", "name": "renamed", "remain_quota": 70, "expired_time": -1}, 200, ok({
            **TOKEN_ROW, "name": "renamed", "remain_quota": 70})),
    Case("alice", "PUT /api/token/?status_only=1", {"id": "{mine}", "status": 2}, 200, ok({
        "status": 2, "name": "renamed", "remain_quota": 70})),
    Case("alice", "PUT /api/token/?status_only=true", {"id": "{mine}", "status": 1}, 200, ok({
        "status": 1})),
    Case("bob", "PUT /api/token/?status_only=1", {"id": "{mine}", "status": 2}, 200, FAIL),
    Case("alice", "PUT /api/token/", {"id": 999, "name": "x"}, 200, FAIL),
    Case("alice", "PUT /api/token/", {"id": "{mine}", "name": "n" * 31}, 200, FAIL),
    Case("alice", "PUT /api/token/", {
        "id": "{mine}", "name": "renamed", "unlimited_quota": True, "expired_time": -1}, 200, ok({
            "unlimited_quota": True})),
    Case("bob", "DELETE /api/token/{mine}", "", 200, FAIL),
    Case("alice", "DELETE /api/token/{mine}", "", 200, OK),
    Case("alice", "DELETE /api/token/{mine}", "", 200, FAIL),
    Case("alice", "GET /api/token/{mine}", "", 200, FAIL),
]  # fmt: skip

CHANNELS = [
    Case("alice", "GET /api/channel/", "", 200, FAIL),
    Case("alice", "POST /api/channel/", CHANNEL, 200, FAIL),
    Case("bob", "GET /api/channel/", "", 200, ok([])),
    Case("bob", "POST /api/channel/", CHANNEL, 200, OK),
    Case("bob", "GET /api/channel/?p=0", "", 200, ok([{
        **CHANNEL_ROW, "id": 1, "type": 1, "status": 1, "name": "first", "weight": 0,
        "models": "gpt-4,gpt-3.5-turbo", "group": "default", "base_url": ""}])),
    Case("bob", "POST /api/channel/", {
        **CHANNEL, "key": "sk-b\nsk-c\n\nsk-d", "name": "many"}, 200, OK),
    Case("bob", "GET /api/channel/", "", 200, ok([
        {"id": 4, "name": "many"}, {"id": 3}, {"id": 2}, {"id": 1}])),
    Case("bob", "GET /api/channel/?p=1", "", 200, ok([])),
    Case("bob", "POST /api/channel/", b"{", 200, FAIL),
    Case("bob", "POST /api/channel/", {**CHANNEL, "type": "one"}, 200, FAIL),
    Case("bob", "GET /api/channel/1", "", 200, ok({**CHANNEL_ROW, "key": ""})),
    Case("bob", "GET /api/channel/99", "", 200, FAIL),
    Case("bob", "GET /api/channel/x", "", 200, FAIL),
    Case("bob", "GET /api/channel/search?keyword=fir", "", 200, ok([{"id": 1, "key": ""}])),
    Case("bob", "GET /api/channel/search?keyword=3", "", 200, ok([{"id": 3}])),
    Case("bob", "GET /api/channel/search?keyword=zz", "", 200, ok([])),
    Case("bob", "GET /api/channel/models", "", 200, {"object": "list", "data": list}),
    Case("bob", "PUT /api/channel/", {
        "id": 1, "name": "renamed", "base_url": "https://m.example", "priority": 7}, 200, ok({
            "id": 1, "name": "renamed"})),
    Case("bob", "GET /api/channel/1", "", 200, ok({
        "name": "renamed", "base_url": "https://m.example", "priority": 7, "type": 1,
        "models": "gpt-4,gpt-3.5-turbo"})),
    Case("bob", "PUT /api/channel/", {"id": 1, "base_url": ""}, 200, OK),
    Case("bob", "GET /api/channel/1", "", 200, ok({"base_url": "", "name": "renamed"})),
    Case("bob", "PUT /api/channel/", {"id": 1, "name": ""}, 200, OK),
    Case("bob", "GET /api/channel/1", "", 200, ok({"name": "renamed"})),
    Case("bob", "PUT /api/channel/", {"id": 1, "status": 2}, 200, OK),
    Case("bob", "GET /api/channel/1", "", 200, ok({"status": 2})),
    Case("bob", "PUT /api/channel/", b"{", 200, FAIL),
    Case("bob", "GET /api/channel/test/2", "", 200, {
        "success": True, "message": (str,), "time": float}),
    Case("bob", "GET /api/channel/test/99", "", 200, FAIL),
    Case("bob", "GET /api/channel/test/x", "", 200, FAIL),
    Case("bob", "GET /api/channel/test", "", 200, OK),
    Case("bob", "GET /api/channel/update_balance/99", "", 200, FAIL),
    Case("bob", "DELETE /api/channel/disabled", "", 200, ok(1)),
    Case("bob", "GET /api/channel/1", "", 200, FAIL),
    Case("bob", "DELETE /api/channel/2", "", 200, OK),
    Case("bob", "DELETE /api/channel/2", "", 200, OK),
    Case("bob", "GET /api/channel/", "", 200, ok([{"id": 4}, {"id": 3}])),
    Case("bob", "GET /api/group/", "", 200, ok({"default", "vip", "svip"})),
    Case("alice", "GET /api/group/", "", 200, FAIL),
    Case("alice", "GET /api/models", "", 200, ok(dict)),
]  # fmt: skip

CODES = [
    Case("alice", "POST /api/redemption/", {"name": "n", "quota": 9, "count": 1}, 200, FAIL),
    Case("bob", "POST /api/redemption/", {"name": "", "quota": 9, "count": 1}, 200, FAIL),
    Case("bob", "POST /api/redemption/", {"name": "n" * 21, "quota": 9, "count": 1}, 200, FAIL),
    Case("bob", "POST /api/redemption/", {"name": "n", "quota": 9, "count": 0}, 200, FAIL),
    Case("bob", "POST /api/redemption/", {"name": "n", "quota": 9, "count": 101}, 200, FAIL),
    Case("bob", "POST /api/redemption/", {"name": "n", "quota": 9}, 200, FAIL),
    Case("bob", "POST /api/redemption/", b"{", 200, FAIL),
    Case("root", "POST /api/redemption/", {"name": "gift", "quota": 900, "count": 2}, 200, ok([
        str, str])),
    Case("bob", "GET /api/redemption/", "", 200, ok([
        {**CODE_ROW, "id": 2, "name": "gift", "quota": 900, "status": 1, "redeemed_time": 0},
        {"id": 1}])),
    Case("bob", "GET /api/redemption/?p=1", "", 200, ok([])),
    Case("bob", "GET /api/redemption/search?keyword=gi", "", 200, ok([CODE_ROW, CODE_ROW])),
    Case("bob", "GET /api/redemption/search?keyword=2", "", 200, ok([{"id": 2}])),
    Case("bob", "GET /api/redemption/search?keyword=zz", "", 200, ok([])),
    Case("bob", "GET /api/redemption/1", "", 200, ok(CODE_ROW)),
    Case("bob", "GET /api/redemption/9", "", 200, FAIL),
    Case("bob", "GET /api/redemption/x", "", 200, FAIL),
    Case("bob", "PUT /api/redemption/", {"id": 1, "name": "new", "quota": 50}, 200, ok({
        **CODE_ROW, "name": "new", "quota": 50})),
    Case("bob", "PUT /api/redemption/?status_only=1", {"id": 1, "status": 2}, 200, ok({
        "status": 2, "name": "new", "quota": 50})),
    Case("bob", "PUT /api/redemption/", {"id": 9, "name": "x"}, 200, FAIL),
    Case("alice", "POST /api/user/topup", {"key": "{code1}"}, 200, FAIL),
    Case("bob", "PUT /api/redemption/?status_only=1", {"id": 1, "status": 1}, 200, OK),
    Case("alice", "POST /api/user/topup", {"key": "{code1}"}, 200, ok(50)),
    Case("alice", "POST /api/user/topup", {"key": "{code1}"}, 200, FAIL),
    Case("alice", "POST /api/user/topup", {"key": "0" * 32}, 200, FAIL),
    Case("alice", "POST /api/user/topup", {"key": ""}, 200, FAIL),
    Case("alice", "POST /api/user/topup", b"{", 200, FAIL),
    Case("bob", "GET /api/redemption/1", "", 200, ok({"status": 3, "redeemed_time": int})),
    Case("alice", "GET /api/user/self", "", 200, ok({"quota": 50})),
    Case("bob", "DELETE /api/redemption/2", "", 200, OK),
    Case("bob", "DELETE /api/redemption/2", "", 200, FAIL),
    Case("alice", "POST /api/user/topup", {"key": "{code2}"}, 200, FAIL),
    Case("alice", "GET /api/log/self?type=1", "", 200, ok([{**LOG_ROW, "type": 1}])),
]  # fmt: skip

OPTIONS = [
    Case("bob", "GET /api/option/", "", 200, FAIL),
    Case("root", "GET /api/option/", "", 200, ok(list)),
    Case("root", "PUT /api/option/", b"{", 400, FAIL),
    Case("root", "PUT /api/option/", {"key": "Notice", "value": "Closed on Sunday."}, 200, OK),
    Case("", "GET /api/notice", "", 200, ok("Closed on Sunday.")),
    Case("root", "PUT /api/option/", {"key": "About", "value": "About us"}, 200, OK),
    Case("", "GET /api/about", "", 200, ok("About us")),
    Case("root", "PUT /api/option/", {"key": "HomePageContent", "value": "# Hi"}, 200, OK),
    Case("", "GET /api/home_page_content", "", 200, ok("# Hi")),
    Case("root", "PUT /api/option/", {"key": "SystemName", "value": "Ours"}, 200, OK),
    Case("root", "PUT /api/option/", {"key": "Footer", "value": "<b>f</b>"}, 200, OK),
    Case("root", "PUT /api/option/", {"key": "Logo", "value": "/l.png"}, 200, OK),
    Case("root", "PUT /api/option/", {"key": "TopUpLink", "value": "https://s.example"}, 200, OK),
    Case("root", "PUT /api/option/", {"key": "ChatLink", "value": "https://c.example"}, 200, OK),
    Case("root", "PUT /api/option/", {"key": "ServerAddress", "value": "https://g.example"},
         200, OK),
    Case("root", "PUT /api/option/", {"key": "QuotaPerUnit", "value": "1000"}, 200, OK),
    Case("root", "PUT /api/option/", {"key": "DisplayInCurrencyEnabled", "value": "false"},
         200, OK),
    Case("", "GET /api/status", "", 200, ok({
        "system_name": "Ours", "footer_html": "<b>f</b>", "logo": "/l.png",
        "top_up_link": "https://s.example", "chat_link": "https://c.example",
        "server_address": "https://g.example", "quota_per_unit": 1000,
        "display_in_currency": False})),
    Case("root", "PUT /api/option/", {"key": "GitHubOAuthEnabled", "value": "true"}, 200, FAIL),
    Case("root", "PUT /api/option/", {"key": "WeChatAuthEnabled", "value": "true"}, 200, FAIL),
    Case("root", "PUT /api/option/", {"key": "TurnstileCheckEnabled", "value": "true"}, 200, FAIL),
    Case("root", "PUT /api/option/", {"key": "RetryTimes", "value": 3}, 400, FAIL),
    Case("root", "PUT /api/option/", {"key": "Theme", "value": "none"}, 200, FAIL),
    Case("root", "PUT /api/option/", {"key": "Theme", "value": "berry"}, 200, OK),
    Case("root", "PUT /api/option/", {"key": "EmailVerificationEnabled", "value": "true"}, 200, OK),
    Case("", "GET /api/status", "", 200, ok({"email_verification": True})),
    Case("", "POST /api/user/register", {"username": "erin", "password": "password-1"}, 200, FAIL),
    Case("root", "PUT /api/option/", {"key": "EmailVerificationEnabled", "value": "false"}, 200,
         OK),
    Case("root", "PUT /api/option/", {"key": "QuotaForNewUser", "value": "1234"}, 200, OK),
    Case("", "POST /api/user/register", {"username": "dave", "password": "password-1"}, 200, OK),
    Case("root", "GET /api/user/search?keyword=dave", "", 200, ok([{"quota": 1234}])),
    Case("root", "PUT /api/option/", {"key": "RegisterEnabled", "value": "false"}, 200, OK),
    Case("", "POST /api/user/register", {"username": "erin", "password": "password-1"}, 200, FAIL),
    Case("root", "PUT /api/option/", {"key": "RegisterEnabled", "value": "true"}, 200, OK),
    Case("root", "PUT /api/option/", {"key": "PasswordRegisterEnabled", "value": "false"}, 200, OK),
    Case("", "POST /api/user/register", {"username": "erin", "password": "password-1"}, 200, FAIL),
    Case("root", "PUT /api/option/", {"key": "PasswordLoginEnabled", "value": "false"}, 200, OK),
    Case("", "POST /api/user/login", LOGIN, 200, FAIL),
    Case("root", "PUT /api/option/", {"key": "GroupRatio", "value": '{"default": 1, "team": 2}'},
         200, OK),
    Case("root", "GET /api/group/", "", 200, ok({"default", "team"})),
    Case("root", "PUT /api/option/", {"key": "GroupRatio", "value": "{"}, 200, FAIL),
    Case("root", "PUT /api/option/", {"key": "ModelRatio", "value": '{"gpt-4": 15}'}, 200, OK),
    Case("root", "PUT /api/option/", {"key": "ModelRatio", "value": "no"}, 200, FAIL),
    Case("root", "PUT /api/option/", {"key": "CompletionRatio", "value": '{"gpt-4": 2}'}, 200, OK),
    *[Case("root", "PUT /api/option/", {"key": key, "value": value}, 200, OK)
      for key, value in (("RetryTimes", "2"), ("ChannelDisableThreshold", "5"),
                         ("AutomaticDisableChannelEnabled", "true"),
                         ("AutomaticEnableChannelEnabled", "true"), ("LogConsumeEnabled", "true"),
                         ("DisplayTokenStatEnabled", "true"), ("ApproximateTokenEnabled", "true"),
                         ("PreConsumedQuota", "500"), ("QuotaRemindThreshold", "1000"),
                         ("QuotaForInviter", "10"), ("QuotaForInvitee", "20"),
                         ("SMTPServer", "smtp.example.com"), ("SMTPPort", "587"))],
]  # fmt: skip

RELAY = [
    Case("", "GET /v1/models", "", 401, ERROR),
    Case("", "POST /v1/chat/completions", CHAT, 401, ERROR),
    Case("Bearer sk-wrong", "POST /v1/chat/completions", CHAT, 401, ERROR),
    Case("", "GET /dashboard/billing/subscription", "", 401, ERROR),
    Case("", "GET /v1/dashboard/billing/usage", "", 401, ERROR),
    Case("key", "GET /v1/none", "", 404, {"error": {"message": str}}),
    Case("key", "POST /v1/none", {}, 404, {"error": {"message": str}}),
    Case("key", "GET /v1/models", "", 200, {"object": "list", "data": list}),
    Case("key", "GET /v1/models/gpt-4", "", 200, {**MODEL, "id": "gpt-4"}),
    Case("key", "GET /v1/models/none", "", 200, {"error": {
        "message": "The model 'none' does not exist", "type": "invalid_request_error",
        "param": "model", "code": "model_not_found"}}),
    Case("key", "POST /v1/chat/completions", CHAT, 200, {
        "id": str, "object": "chat.completion", "choices": [{"message": {"content": "Hello"}}],
        "usage": {"total_tokens": 5}}),
    Case("sk-bare", "POST /v1/chat/completions", CHAT, 200, {"object": "chat.completion"}),
    Case("key", "POST /v1/chat/completions", {**CHAT, "stream": True}, 200, "data: [DONE]"),
    Case("key", "POST /v1/chat/completions", {**CHAT, "model": "none"}, 503, ERROR),
    Case("key", "POST /v1/chat/completions", b"{", 400, ERROR),
    Case("key", "POST /v1/chat/completions", {"model": "gpt-4"}, 400, ERROR),
    Case("key", "POST /v1/chat/completions", {"model": "gpt-4", "messages": []}, 400, ERROR),
    Case("key", "POST /v1/chat/completions", {"messages": CHAT["messages"]}, (400, 503), ERROR),
    Case("key", "POST /v1/completions", {"model": "gpt-4"}, 400, ERROR),
    Case("key", "POST /v1/completions", {"model": "gpt-4", "prompt": "Hi"}, 200, dict),
    Case("key", "POST /v1/embeddings", {"model": "gpt-4", "input": "Hi"}, 200, dict),
    Case("key", "POST /v1/engines/gpt-4/embeddings", {"input": "Hi"}, 200, dict),
    Case("key", "POST /v1/moderations", {"input": "Hi"}, 200, dict),
    Case("key", "POST /v1/images/generations", {"prompt": "a cat"}, 200, dict),
    Case("key", "POST /v1/edits", {"model": "gpt-4", "instruction": "x"}, 410, {"error": dict}),
    Case("key-9", "POST /v1/chat/completions", CHAT, 403, ERROR),
    Case("root-9", "POST /v1/chat/completions", CHAT, 400, ERROR),
    Case("root-x", "POST /v1/chat/completions", CHAT, 400, ERROR),
    Case("root-2", "POST /v1/chat/completions", CHAT, 403, ERROR),
    Case("root-1", "POST /v1/chat/completions", CHAT, 200, {"object": "chat.completion"}),
    Case("disabled", "POST /v1/chat/completions", CHAT, 401, ERROR),
    Case("expired", "POST /v1/chat/completions", CHAT, 401, ERROR),
    Case("empty", "POST /v1/chat/completions", CHAT, 401, ERROR),
    Case("limited", "POST /v1/chat/completions", {**CHAT, "model": "gpt-3.5-turbo"}, 403, ERROR),
    Case("limited", "POST /v1/chat/completions", CHAT, 200, dict),
    Case("net", "POST /v1/chat/completions", CHAT, 403, ERROR),
    Case("small", "POST /v1/chat/completions", {**CHAT, "max_tokens": 90000}, 403, error(
        code="pre_consume_token_quota_failed")),
    Case("poor", "POST /v1/chat/completions", CHAT, 403, error(code="insufficient_user_quota")),
    Case("banned", "POST /v1/chat/completions", CHAT, 403, ERROR),
    Case("key", "GET /dashboard/billing/subscription", "", 200, {
        "object": "billing_subscription", "has_payment_method": True, "soft_limit_usd": 100000000,
        "hard_limit_usd": 100000000, "system_hard_limit_usd": 100000000, "access_until": int}),
    Case("key", "GET /v1/dashboard/billing/subscription", "", 200, {
        "object": "billing_subscription"}),
    Case("key", "GET /dashboard/billing/usage", "", 200, {"object": "list", "total_usage": float}),
    Case("key", "GET /v1/dashboard/billing/usage?start_date=2024-01-01&end_date=2024-01-31", "",
         200, {"object": "list", "total_usage": float}),
    Case("alice", "GET /api/log/self", "", 200, {**OK, "data": list}),
    Case("alice", "GET /api/log/self?type=2&p=0", "", 200, {**OK, "data": list}),
    Case("alice", "GET /api/log/self/stat?type=2", "", 200, ok({"quota": int})),
    Case("alice", "GET /api/log/self/search?keyword=2", "", 200, {**OK, "data": list}),
    Case("alice", "GET /api/log/", "", 200, FAIL),
    Case("bob", "GET /api/log/?type=2&username=alice&model_name=gpt-4", "", 200, {
        **OK, "data": list}),
    Case("bob", "GET /api/log/?username=missing", "", 200, ok([])),
    Case("bob", "GET /api/log/stat?type=2", "", 200, ok({"quota": int})),
    Case("bob", "GET /api/log/search?keyword=alice", "", 200, {**OK, "data": list}),
    Case("bob", "DELETE /api/log/", "", 200, FAIL),
    Case("bob", "DELETE /api/log/?target_timestamp=9999999999", "", 200, ok(int)),
    Case("bob", "GET /api/log/?type=2", "", 200, ok([])),
]  # fmt: skip


class World:
    """One API with root, a user and an administrator, and what the cases name."""

    def __init__(self) -> None:
        self.one = OneAPI(Vendors())
        self.callers = {"": "", "root": ROOT}
        self.names: dict[str, Any] = {}

    async def prepare(self) -> None:
        _, self.callers["alice"] = await self.one.user("alice", quota=0)
        _, self.callers["bob"] = await self.one.user("bob", quota=0)
        await self.one.call("POST", "/api/user/manage", {"username": "bob", "action": "promote"})

    async def prepare_relay(self) -> None:
        one = self.one
        models = "gpt-4,gpt-3.5-turbo,dall-e-2,text-moderation-stable"
        await one.channel(models=models)
        disabled = await one.channel(models=models)
        await one.call("PUT", "/api/channel/", {"id": disabled, "status": 2})
        await one.call("PUT", "/api/user/", {"id": 2, "quota": 10_000_000})
        alice, unlimited = self.callers["alice"], {"unlimited_quota": True}

        async def key(name: str, access: str = alice, **fields: Any) -> int:
            id, made = await one.token(access, **{"name": name, **fields})
            self.callers[name] = f"Bearer {made}"
            return id

        await key("key")
        self.callers["sk-bare"] = self.callers["key"].removeprefix("Bearer ")
        self.callers["key-9"] = self.callers["key"] + "-9"
        await key("root key", ROOT)
        for suffix in ("9", "x", "1", "2"):
            self.callers[f"root-{suffix}"] = f"{self.callers['root key']}-{suffix}"
        id = await key("disabled")
        await one.call("PUT", "/api/token/?status_only=1", {"id": id, "status": 2}, alice)
        await key("expired", expired_time=1)
        await key("empty", unlimited_quota=False, remain_quota=0)
        await key("small", unlimited_quota=False, remain_quota=1000)
        await key("limited", models="gpt-4")
        await key("net", subnet="10.9.8.0/24")
        _, poor = await one.user("carol", quota=0)
        await key("poor", poor, **unlimited)
        _, banned = await one.user("dave")
        await key("banned", banned)
        await one.call("POST", "/api/user/manage", {"username": "dave", "action": "disable"})

    async def send(self, case: Case) -> asgi.Answer:
        method, _, path = case.request.partition(" ")
        caller = self.callers.get(case.caller, case.caller)
        body = self._filled(case.body)
        answer = await self.one.answer(method, self._filled(path), body or b"", caller)
        self._remember(case, answer)
        return answer

    def _filled(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {name: self._filled(member) for name, member in value.items()}
        if isinstance(value, str) and value.startswith("{") and value.endswith("}"):
            return self.names.get(value[1:-1], value)
        if isinstance(value, str):
            for name, known in self.names.items():
                value = value.replace(f"{{{name}}}", str(known))
        return value

    def _remember(self, case: Case, answer: asgi.Answer) -> None:
        if case.request == "POST /api/token/" and b'"name":"mine"' in answer.body:
            self.names["mine"] = answer.json["data"]["id"]
        if case.request == "POST /api/redemption/" and answer.json.get("success"):
            self.names["code1"], self.names["code2"] = answer.json["data"]


TABLES = {"public": PUBLIC, "users": USERS, "tokens": TOKENS, "channels": CHANNELS,
          "codes": CODES, "options": OPTIONS, "relay": RELAY}  # fmt: skip


@pytest.mark.parametrize("table", TABLES)
async def test_answers_are_those_of_one_api(table: str) -> None:
    world = World()
    if table != "public":
        await world.prepare()
    if table == "relay":
        await world.prepare_relay()
    found = await problems(TABLES[table], world.send)
    assert not found, "\n".join(found)
