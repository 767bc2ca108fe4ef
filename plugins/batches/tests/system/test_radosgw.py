"""What every storage of files must do, on Ceph's S3: Debian's radosgw."""

from collections.abc import Iterator
from typing import Any

import boto3
import pytest

from plugins.batches.tests.contracts import test_storage as contract
from plugins.batches.tests.contracts.storages import Bucket
from tests.system.ceph import KEY, Ceph

REGION = "default"


@pytest.fixture(scope="module")
def ceph(ceph_paths: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ceph]:
    with Ceph(tmp_path_factory.mktemp("ceph")) as ceph:
        yield ceph


@pytest.fixture
def place(ceph: Ceph, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    keys = {"aws_access_key_id": KEY, "aws_secret_access_key": KEY}
    for name, value in keys.items():
        monkeypatch.setenv(name.upper(), value)
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    client: Any = boto3.client("s3", REGION, endpoint_url=ceph.url, **keys)
    return Bucket(client, ceph.url)


storage = contract.storage
test_a_file_is_read_as_it_was_written = contract.test_a_file_is_read_as_it_was_written
test_a_reader_gets_parts_of_bounded_size = contract.test_a_reader_gets_parts_of_bounded_size
test_a_file_is_there_once_it_is_whole = contract.test_a_file_is_there_once_it_is_whole
test_files_of_two_keys_are_apart = contract.test_files_of_two_keys_are_apart
test_what_a_writer_abandons_is_gone = contract.test_what_a_writer_abandons_is_gone
test_what_a_dead_writer_has_left_is_deleted = contract.test_what_a_writer_that_died_has_left_is_deleted
test_a_deleted_file_is_gone = contract.test_a_deleted_file_is_gone_and_may_be_deleted_again
test_a_reader_goes_on_while_its_file_is_deleted = contract.test_a_reader_goes_on_while_its_file_is_deleted
test_a_storage_that_does_not_work_says_so = contract.test_a_storage_that_does_not_work_says_so
