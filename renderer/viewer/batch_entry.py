"""A batch on view: what its journal says of every item."""

from __future__ import annotations

from collections import Counter
from typing import Any

from ..errors import line, printable
from ..files.location import Location
from ..journal.journal import Journal
from ..store.directory import store_directory

MOST_ITEMS = 500  # of a batch, in a list
ITEM_ORDER = ("failed", "running", "stopped", "queued", "done")
ITEM_FIELDS = ("state", "error", "seconds", "retries")


class BatchEntry:
    """One batch, by its journal."""

    def __init__(self, name: str, place: Location) -> None:
        self.name = name
        self.journal: Journal = store_directory(place).journal()

    def as_json(self) -> dict[str, Any]:
        """How it stands: whether it is at work, and the state of each item.

        `items` are `MOST_ITEMS` at most, those that failed or are drawn first.
        """
        items: dict[str, dict[str, Any]] = {}
        try:
            is_at_work = self.journal.is_claimed() and not self.journal.is_given_up()
            events = self.journal.read()
        except OSError as error:  # a StoreError is one
            return {"name": self.name, "fault": line(error), "items": [], "counts": {}}
        for event in events:
            if event["event"] == "batch":
                for item in event["items"]:
                    items.setdefault(item, {"state": "queued"})
            elif event["event"] == "item":
                items[event["name"]] = {k: event[k] for k in ITEM_FIELDS if k in event}
        for about in items.values():
            if about["state"] == "running" and not is_at_work:
                about["state"] = "stopped"
            if about.get("error"):
                about["error"] = line(about["error"])
        counts = Counter(str(about["state"]) for about in items.values())
        listed = [{"name": printable(item), **about} for item, about in items.items()]
        if len(listed) > MOST_ITEMS:
            listed.sort(key=lambda about: ITEM_ORDER.index(about["state"]))
        shown = {"counts": counts, "items": listed[:MOST_ITEMS]}
        return {"name": self.name, "at_work": is_at_work, **shown}
