"""The forms of the pages. Every text that they let through is printable, so that Postgres stores it as it is."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from flask_wtf import FlaskForm
from wtforms import Field, Form, PasswordField, SelectField, SelectMultipleField, StringField
from wtforms.fields.choices import SelectChoice
from wtforms.validators import Length, Optional, Regexp, ValidationError
from wtforms.widgets import CheckboxInput, ListWidget

from headrace.config.pools import CACHE_LIMIT_S
from headrace.domain import operators
from headrace.domain.apps import Scope
from headrace.domain.ids import parse_id
from headrace.domain.queues import Lane
from headrace.domain.states import JobState
from headrace.errors import InvalidRequest, NotFound
from headrace.installed import read_note
from headrace.store.audit import ACTIONS

#: The largest of Postgres's `integer`.
LIMIT_MAX = 2**31 - 1
_AMOUNT = r"^[0-9]{1,9}(\.[0-9]{1,9})?$"
_WHOLE = r"^[1-9][0-9]{0,9}$"
_WHOLE_OR_ZERO = r"^(0|[1-9][0-9]{0,9})$"


def printable(_form: Form, field: Field) -> None:
    """Raises: ValidationError."""
    if field.data and not str(field.data).isprintable():
        raise ValidationError("It has characters that cannot be printed.")


def _stripped(text: str | None) -> str | None:
    return text.strip() if text else None


def checked(form: Form) -> Any:
    """The form, if every field is valid. Raises: InvalidRequest."""
    if form.validate():
        return form
    wrong = [f"{form[name].label.text}: {' '.join(map(str, errors))}" for name, errors in form.errors.items() if name]
    raise InvalidRequest(" ".join(wrong) or "The form is not valid.")


def text_field(label: str, *, chars: int = 100) -> StringField:
    return StringField(label, filters=[_stripped], validators=[Optional(), Length(max=chars), printable])


def _matching(label: str, pattern: str) -> StringField:
    return StringField(label, filters=[_stripped], validators=[Optional(), Regexp(pattern)])


def choice(label: str, values: Sequence[str], every: str = "any") -> SelectField:
    return SelectField(
        label, choices=[SelectChoice("", every), *(SelectChoice(value, value) for value in values)], default=""
    )


class LoginForm(FlaskForm):
    """A name and a password."""

    name = StringField("Name", validators=[Length(1, 64), printable])
    password = PasswordField("Password", validators=[Length(1, 200)])


class JobFilter(Form):
    """Which jobs are listed."""

    state = choice("State", [*(state.value for state in JobState), "dead"])
    lane = choice("Lane", [lane.value for lane in Lane])
    app = text_field("App")
    model = text_field("Model", chars=200)
    end_user = text_field("End user", chars=300)
    error_code = text_field("Error code")
    queue = text_field("Queue")
    metadata = text_field("Metadata", chars=300)
    since = text_field("Since", chars=40)
    until = text_field("Until", chars=40)
    note = text_field("Note", chars=100)
    before = text_field("Before", chars=60)

    def noted(self) -> tuple[str, str] | None:
        """A plugin, and what it has noted of the jobs. Raises: InvalidRequest."""
        try:
            return read_note(self.note.data) if self.note.data else None
        except ValueError as error:
            raise InvalidRequest(f"Note: {error}", param="note") from error

    def pair(self) -> tuple[str, str] | None:
        """The key and the value of the metadata. Raises: InvalidRequest."""
        if not self.metadata.data:
            return None
        key, sign, value = self.metadata.data.partition("=")
        if not (key and sign):
            raise InvalidRequest("Metadata: it is no key=value, such as order=17.", param="metadata")
        return key, value

    def moment(self, name: str) -> datetime | None:
        """The time of a field. Raises: InvalidRequest."""
        text = self[name].data
        try:
            return operators.read_time(text, datetime.now(UTC)) if text else None
        except ValueError as error:
            raise InvalidRequest(f"{self[name].label.text}: {error}", param=name) from error

    def last_seen(self) -> UUID | None:
        """The id of the last job of the page before. Raises: InvalidRequest."""
        try:
            return parse_id(self.before.data) if self.before.data else None
        except NotFound as error:
            raise InvalidRequest("Before: it is not the id of a job.", param="before") from error


class DeliveryFilter(Form):
    """Which deliveries are listed."""

    app = text_field("App")
    state = choice("State", ["failed", "retrying", "pending", "delivered"])


class AuditFilter(Form):
    """Which rows of the audit log are listed."""

    actor = text_field("Operator", chars=200)
    action = choice("Action", ACTIONS)
    app = text_field("App")
    day = _matching("Day", r"^20[0-9]{2}-[0-9]{2}-[0-9]{2}$")
    before = _matching("Before", r"^[0-9]{1,18}$")

    def days(self) -> tuple[datetime, datetime] | tuple[None, None]:
        """The start and the end of the day. Raises: InvalidRequest."""
        if not self.day.data:
            return None, None
        try:
            start = datetime.fromisoformat(self.day.data).replace(tzinfo=UTC)
            return start, start + timedelta(days=1)
        except (ValueError, OverflowError) as error:
            raise InvalidRequest("Day: it is no day such as 2026-03-01.", param="day") from error


class Periods(Form):
    """The time that a chart or page shows."""

    hours = SelectField(
        "Time",
        choices=[
            *(SelectChoice("1", "1 hour"), SelectChoice("6", "6 hours")),
            *(SelectChoice("24", "1 day"), SelectChoice("168", "7 days")),
        ],
        default="1",
    )
    pool = text_field("Pool")


class MonthForm(Form):
    """A month."""

    month = _matching("Month", r"^20[0-9]{2}-(0[1-9]|1[0-2])$")


class LimitsForm(FlaskForm):
    """The limits of one app, where an empty field is no limit, and its calls and its cache, where it is the setting."""

    queued_jobs = _matching("Jobs that may wait", _WHOLE)
    requests_per_minute = _matching("Requests a minute", _WHOLE)
    tokens_per_minute = _matching("Tokens a minute", _WHOLE)
    calls_per_minute = _matching("Calls a minute", _WHOLE)
    day_usd = _matching("USD a day", _AMOUNT)
    month_usd = _matching("USD a month", _AMOUNT)
    cache_s = _matching("Answers serve identical jobs for, in s", _WHOLE_OR_ZERO)
    lanes = SelectMultipleField(
        "Lanes",
        choices=[SelectChoice(lane.value, lane.value) for lane in Lane],
        option_widget=CheckboxInput(),
        widget=ListWidget(prefix_label=False),
    )

    def whole(self, name: str) -> int | None:
        """A limit in whole numbers. Raises: InvalidRequest."""
        text, most = self[name].data, CACHE_LIMIT_S if name == "cache_s" else LIMIT_MAX
        if text and int(text) > most:
            raise InvalidRequest(f"{self[name].label.text}: at most {most:,}.", param=name)
        return int(text) if text else None

    def usd(self, name: str) -> Decimal | None:
        return Decimal(self[name].data) if self[name].data else None


class BudgetForm(FlaskForm):
    """The budget of all apps together; an empty field is no limit."""

    day_usd = _matching("USD a day", _AMOUNT)
    month_usd = _matching("USD a month", _AMOUNT)

    def usd(self, name: str) -> Decimal | None:
        return Decimal(self[name].data) if self[name].data else None


class KeyForm(FlaskForm):
    """A new key."""

    scopes = SelectMultipleField(
        "Scopes",
        choices=[SelectChoice(scope.value, scope.value) for scope in Scope],
        default=[scope.value for scope in Scope],
        option_widget=CheckboxInput(),
        widget=ListWidget(prefix_label=False),
    )
    days = _matching("Days until it expires", r"^[1-9][0-9]{0,4}$")
