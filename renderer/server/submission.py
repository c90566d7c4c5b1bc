"""A request becomes a job: checked, planned and on disk, or refused with nothing left behind."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal

from ..driver.store_arrays import store_layout
from ..errors import ExportError, FriezeError
from ..files.location import Location
from ..outputs.exporting import exporter
from ..planning.canvas_plan import CanvasPlan
from ..store.layout import StoreLayout
from . import image_request, uploads
from .api_error import ApiError, invalid, refused
from .image_request import ImageRequest
from .jobs.job import SUFFIXES, Job, new_id, now
from .jobs.job_queue import JobQueue
from .jobs.job_run import Spread, planned
from .limits import Limits
from .served_models import ServedModel

PART = 1 << 20  # bytes of a file at a time
MOST_KEY = 255  # letters of an Idempotency-Key


@dataclass(frozen=True)
class Asked:
    """A request as it came: `files` by their fields, `owner` whose token it was."""

    kind: Literal["image_generation", "image_edit"]
    body: Mapping[str, Any]
    files: Mapping[str, BinaryIO]
    owner: str
    key: str = ""
    is_form: bool = False

    def digest(self) -> str:
        """Of all that was asked for."""
        found = hashlib.sha256(json.dumps([self.kind, self.body], sort_keys=True).encode())
        for name, file in sorted(self.files.items()):
            file.seek(0)
            found.update(f"\0{name}\0".encode())
            while part := file.read(PART):
                found.update(part)
        return found.hexdigest()


class Submission:
    """Takes requests, one at a time, for all connections."""

    def __init__(
        self,
        queue: JobQueue,
        models: Mapping[str, ServedModel],
        fields: frozenset[str],
        limits: Limits,
        spread: Spread,
    ) -> None:
        self.queue, self.models, self.fields = queue, models, fields
        self.limits, self.spread = limits, spread
        self._turn = threading.Lock()

    def request(self, asked: Asked) -> tuple[ImageRequest, dict[str, Any]]:
        """What is asked for, in the API's fields and in a spec's; raises `ApiError`."""
        return image_request.read(asked.body, self.fields, is_form=asked.is_form)

    def model(self, name: str | None) -> ServedModel:
        """A model by its name, the first for none; raises `ApiError` 404."""
        found = self.models.get(next(iter(self.models)) if name is None else name)
        if found is None:
            raise ApiError(
                404,
                f"there is no model {name!r:.120}; there are: {', '.join(self.models)}",
                param="model",
                code="model_not_found",
            )
        return found

    def job(self, asked: Asked, request: ImageRequest, own: Mapping[str, Any]) -> Job:
        """The job of a request, which waits from now on; raises `ApiError`.

        With a key that came before, the job that came with it.
        """
        model, digest = self.model(request.model), asked.digest() if asked.key else ""
        key = hashlib.sha256(asked.key.encode()).hexdigest() if asked.key else ""
        with self._turn:
            if key and (known := self.queue.of_key(asked.owner, key)):
                return _same(known, digest)
            self.queue.check_room(asked.owner)
            job_id = new_id()
            folder = self.queue.folder.make(job_id)
            try:
                found, size = (
                    uploads.written(asked.files, folder, self.limits.pixels)
                    if asked.kind == "image_edit"
                    else ({}, None)
                )
                items = image_request.items(request, own, model, self.limits, found, size)
                job = Job(
                    id=job_id,
                    kind=asked.kind,
                    model=model.id,
                    owner=asked.owner,
                    created=now(),
                    priority=request.priority,
                    items=items,
                    told=request.told_back(),
                    is_url=request.is_url,
                    key=key,
                    body=digest,
                )
                spec = self._checked(job, request.size).spec
                job.size = (spec.width, spec.height)
                self.queue.submit(job)
            except BaseException:
                self.queue.folder.discard(job_id)
                raise
        return job

    def _checked(self, job: Job, size: str | None) -> CanvasPlan:
        """The plan of a job's first picture: that of the others differs by the seed alone."""
        first = job.model_copy(update={"items": job.items[:1]})
        try:
            (picture,) = planned(first, self.queue.folder.of(job), self.spread)
            layout = store_layout(picture.plan)
            check_format(picture.item.main, layout)
        except FriezeError as error:
            raise refused(error, size) from None
        return picture.plan


def check_format(out: Location, layout: StoreLayout) -> None:
    """Raise `ApiError` where a format cannot hold a picture, with those of the API that can."""
    try:
        exporter(out).check(out, layout)
    except ExportError as error:
        why = str(error).removeprefix(f"{out}: ").partition("; use ")[0]
        fine = [name for name, suffix in SUFFIXES.items() if _can_hold(out, suffix, layout)]
        works = f"{' or '.join(fine)} works" if fine else "none of the API's works"
        raise invalid(f"output_format: {why}; {works}", "output_format") from None


def _can_hold(out: Location, suffix: str, layout: StoreLayout) -> bool:
    other = out.with_suffix(suffix)
    try:
        exporter(other).check(other, layout)
    except ExportError:
        return False
    return True


def _same(known: Job, digest: str) -> Job:
    if known.body != digest:
        raise ApiError(
            409,
            "this Idempotency-Key came with another request; use another",
            param="Idempotency-Key",
            code="idempotency_conflict",
        )
    return known
