"""What a user may read of why a job waits."""

from __future__ import annotations

import uuid

from tinksched.core.model import Reason, ReasonCode
from tinksched.server.discretion import discreet


def test_other_users_jobs_have_no_ids_and_ones_own_have() -> None:
    mine, theirs = str(uuid.uuid4()), str(uuid.uuid4())
    for job, said in ((mine, mine), (theirs, "another job")):
        reason = Reason(ReasonCode.HELD_FOR, {"task": job})
        assert job in reason.text, "else this shows nothing"
        text = discreet(reason, lambda one: one == mine)
        assert said in text and theirs not in text


def test_who_cancelled_a_job_is_said_and_who_paused_all_is_not() -> None:
    assert "root" in discreet(Reason(ReasonCode.CANCELLED_BY_USER, {"user": "root"}), lambda _: False)
    paused = Reason(ReasonCode.PAUSED, {"user": "root"})
    assert "root" in paused.text and "root" not in discreet(paused, lambda _: False)
