"""The main job: the example application, from its folder to an order that survives."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import Any

from tests.support.platform import Platform, eventually

SHOP = Path(__file__).parents[2] / "examples/shop"
URL = "http://127.0.0.1:8088"


def call(path: str, body: Any = None) -> Any:
    data = json.dumps(body).encode() if body is not None else None
    request = urllib.request.Request(URL + path, data, {"Content-Type": "application/json"})
    return json.load(urllib.request.urlopen(request, timeout=10))


def orders() -> set[str]:
    found = call("/api/orders")
    return {item["id"] for item in (found["orders"] if isinstance(found, dict) else found)}


def test_an_order_survives_everything(platform: Platform) -> None:
    outcome = json.loads(platform.dure("deploy", str(SHOP), "-o", "json", timeout=420).stdout)
    assert URL in [url.rstrip("/") for url in outcome["urls"]]
    page = urllib.request.urlopen(URL, timeout=10).read().decode()
    assert "<html" in page.lower()
    placed = {eventually(lambda: call("/api/orders", {"product": "tea", "quantity": 2}))["id"]}
    assert placed <= orders()

    for part in ("orders", "catalogue", "shipping", "front", "database"):
        platform.kubectl("-n", "shop", "delete", "pod", "-l", f"app={part}", "--wait=true")
        placed.add(eventually(lambda: call("/api/orders", {"product": "tea", "quantity": 1}), within=90)["id"])
    assert placed <= eventually(orders)

    platform.dure("down", "--keep")
    platform.up()
    assert placed <= eventually(orders, within=90)
    again = json.loads(platform.dure("deploy", str(SHOP), "-o", "json", timeout=300).stdout)
    assert again["images"] == outcome["images"]
    platform.kubectl("delete", "namespace", "shop", "--timeout=90s")
