import json
import logging

import pytest

from headrace.logging import JsonFormatter


def test_record_is_one_json_line_with_its_facts() -> None:
    record = logging.makeLogRecord({"name": "n", "msg": "job_ended", "levelno": 20, "levelname": "INFO", "run_s": 1.5})

    line = json.loads(JsonFormatter().format(record))

    assert (line["event"], line["level"], line["run_s"]) == ("job_ended", "info", 1.5)


def test_record_with_each_has_a_line_for_each() -> None:
    record = logging.makeLogRecord({"msg": "job_accepted", "worker": "w", "each": [{"job_id": "a"}, {"job_id": "b"}]})

    lines = [json.loads(line) for line in JsonFormatter().format(record).split("\n")]

    assert [(line["event"], line["worker"], line["job_id"]) for line in lines] == [
        ("job_accepted", "w", "a"),
        ("job_accepted", "w", "b"),
    ]


def test_exception_is_part_of_the_line() -> None:
    with pytest.raises(ValueError, match="no") as caught:
        raise ValueError("no")
    record = logging.makeLogRecord({"msg": "fault", "exc_info": (caught.type, caught.value, caught.tb)})

    text = JsonFormatter().format(record)

    assert "\n" not in text
    assert "ValueError: no" in json.loads(text)["exception"]
