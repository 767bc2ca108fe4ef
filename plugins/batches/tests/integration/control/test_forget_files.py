"""The sweep of files: contents that no call finds any more are deleted, whichever process has left them."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest
import sqlalchemy as sa

from headrace import sweeper
from headrace.domain.apps import App
from headrace.domain.ids import oldest_id, show_id
from headrace.store import Store, apps, clock
from plugins.batches.control import SILENT_AFTER, forget_files
from plugins.batches.domain import FILE_PREFIX, storage_key
from plugins.batches.storage import Storage, Writer
from plugins.batches.storage.base import StorageUnavailable
from plugins.batches.storage.folder import FolderStorage
from plugins.batches.store import files
from plugins.batches.tables import files as table
from scheduler.app import FORGET_EVERY_S
from scheduler.deps import ControlDeps
from tests.waiting import Clock

Make = Callable[..., UUID]


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return FolderStorage(tmp_path)


@pytest.fixture
def make(store: Store, storage: Storage, app: App) -> Iterator[Make]:
    """Makes a file of an age, whole or not."""
    dead: list[Writer] = []

    def make(
        age: timedelta = timedelta(0),
        *,
        is_whole: bool = True,
        expires_s: float | None = None,
        app_id: UUID = app.id,
    ) -> UUID:
        with store.begin() as db:
            file_id = files.begin(db, app_id, "batch", "x", 1, 1000)
            if is_whole:
                files.finish(db, file_id, "batch", 1, expires_s)
            made_at = clock.now(db) - age
            aged = oldest_id(made_at) if age else file_id
            db.execute(sa.update(table).where(table.c.id == file_id).values(id=aged, created_at=made_at))
        writer = storage.writer(storage_key(app_id, aged))
        writer.write(b"x")
        if is_whole:
            writer.finish()
        else:
            dead.append(writer)
        return aged

    yield make
    for writer in dead:
        writer.abandon()


@pytest.fixture
def left(store: Store, tmp_path: Path) -> Callable[[], tuple[set[UUID], int]]:
    """The files that have a row, and the number of contents."""

    def look() -> tuple[set[UUID], int]:
        with store.begin() as db:
            rows = set(db.scalars(sa.select(table.c.id)))
        return rows, sum(path.is_file() for path in tmp_path.rglob("*"))

    return look


def test_a_deleted_file_goes_and_others_stay(
    deps: ControlDeps, make: Make, left: Callable[[], object], store: Store, app: App, storage: Storage
) -> None:
    kept, deleted = make(), make()
    with store.begin() as db:
        files.delete(db, app.id, deleted)
    assert forget_files(deps, storage) == 1
    assert left() == ({kept}, 1)
    assert forget_files(deps, storage) == 0


def test_expired_files_go(
    deps: ControlDeps, make: Make, left: Callable[[], object], store: Store, storage: Storage
) -> None:
    kept, expired = make(expires_s=3600), make(expires_s=3600)
    with store.begin() as db:
        db.execute(sa.update(table).where(table.c.id == expired).values(expires_at=sa.func.now()))
    assert forget_files(deps, storage) == 1
    assert left() == ({kept}, 1)


def test_files_older_than_texts_go(deps: ControlDeps, make: Make, left: Callable[[], object], storage: Storage) -> None:
    kept = make(timedelta(days=29))
    make(timedelta(days=31))
    assert forget_files(deps, storage) == 1
    assert left() == ({kept}, 1)


def test_files_stay_where_texts_stay_for_ever(
    deps: ControlDeps, make: Make, left: Callable[[], object], storage: Storage
) -> None:
    kept = make(timedelta(days=400))
    forever = replace(deps, settings=deps.settings.model_copy(update={"keep_texts_days": None}))
    assert forget_files(forever, storage) == 0
    assert left() == ({kept}, 1)


def test_an_upload_whose_process_died_goes_after_the_longest_upload(
    deps: ControlDeps, make: Make, left: Callable[[], object], storage: Storage
) -> None:
    kept = make(files.LONGEST_UPLOAD - timedelta(minutes=1), is_whole=False)
    make(files.LONGEST_UPLOAD + timedelta(minutes=1), is_whole=False)
    assert forget_files(deps, storage) == 1
    assert left() == ({kept}, 1)


def test_a_storage_that_is_silent_loses_no_file_of_sight(
    deps: ControlDeps,
    make: Make,
    left: Callable[[], object],
    store: Store,
    app: App,
    monkeypatch: pytest.MonkeyPatch,
    storage: Storage,
) -> None:
    deleted = {make() for _ in range(2 * SILENT_AFTER)}
    asked = list[object]()
    with store.begin() as db:
        for file_id in deleted:
            files.delete(db, app.id, file_id)

    def silent(_: object, key: str) -> None:
        asked.append(key)
        raise StorageUnavailable

    with monkeypatch.context() as patch:
        patch.setattr(FolderStorage, "delete", silent)
        with pytest.raises(StorageUnavailable):
            forget_files(deps, storage)
    assert (left(), len(asked)) == ((deleted, len(deleted)), SILENT_AFTER)
    monkeypatch.setattr(sweeper, "ASIDE_S", 0.0)
    assert forget_files(deps, storage) == len(deleted)
    assert left() == (set(), 0)


def test_a_file_that_cannot_be_deleted_holds_up_no_other_and_is_named(
    deps: ControlDeps,
    make: Make,
    left: Callable[[], object],
    tmp_path: Path,
    app: App,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    storage: Storage,
) -> None:
    stuck, *_ = sorted(make(timedelta(days=31 + number)) for number in range(3))
    place = tmp_path / storage_key(app.id, stuck)
    place.unlink()
    place.mkdir()
    assert forget_files(deps, storage) == 3
    assert left() == ({stuck}, 0)
    assert forget_files(deps, storage) == 0, "it is left out for a while"
    shown = show_id(stuck, FILE_PREFIX)
    assert [(each.sweep, each.id) for each in caplog.records if each.message == "set_aside"] == [
        ("forget_files", shown)
    ]  # type: ignore[attr-defined]
    assert f"forget_files set {shown} aside: " in deps.sweeps.problems()["HeadraceSweepFailing"]

    place.rmdir()
    monkeypatch.setattr(sweeper, "ASIDE_S", 0.0)
    assert forget_files(deps, storage) == 1
    assert (left(), deps.sweeps.problems()) == ((set(), 0), {})


@pytest.fixture
def locked(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The ids of the files that the storage keeps, though it answers."""
    keys, delete = set[str](), FolderStorage.delete

    def refuse(storage: FolderStorage, key: str) -> None:
        if key.rpartition("/")[2] in keys:
            raise StorageUnavailable("S3 does not take it: AccessDenied")
        delete(storage, key)

    monkeypatch.setattr(FolderStorage, "delete", refuse)
    return keys


def test_files_of_an_app_that_cannot_be_deleted_hold_up_no_other_app(
    deps: ControlDeps,
    make: Make,
    left: Callable[[], tuple[set[UUID], int]],
    store: Store,
    locked: set[str],
    storage: Storage,
) -> None:
    stuck = {make(timedelta(days=40, seconds=number)) for number in range(files.SWEEP_ROWS + 1)}
    with store.begin() as db:
        other_id = apps.create(db, "other", {}).id
    for number in range(5):
        make(timedelta(days=31, seconds=number), app_id=other_id)
    locked |= {each.hex for each in stuck}
    with pytest.raises(StorageUnavailable):
        forget_files(deps, storage)
    assert left()[0] == stuck


def test_files_that_cannot_be_deleted_hold_up_others_of_their_app_for_minutes_at_most(
    deps: ControlDeps,
    make: Make,
    left: Callable[[], tuple[set[UUID], int]],
    locked: set[str],
    monkeypatch: pytest.MonkeyPatch,
    storage: Storage,
) -> None:
    stuck = {make(timedelta(days=40, seconds=number)) for number in range(40)}
    for number in range(5):
        make(timedelta(days=31, seconds=number))
    locked |= {each.hex for each in stuck}
    monkeypatch.setattr(sweeper, "time", clock_of_runs := Clock())
    for run in range(60):
        clock_of_runs.monotonic = lambda run=run: run * FORGET_EVERY_S
        with suppress(StorageUnavailable):
            forget_files(deps, storage)
    assert left()[0] == stuck


def test_a_batch_that_is_full_is_followed_at_once(deps: ControlDeps, make: Make, storage: Storage) -> None:
    for _ in range(3):
        make(timedelta(days=31))
    assert forget_files(deps, storage) == 3
