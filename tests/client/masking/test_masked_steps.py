"""A silo's honest masked sums: their order, their bytes, and where their secrets are."""

import base64
import os
import stat

import numpy as np
import pytest
from masked_silos import ME, STEPS, Asked

from fondaco.client.agent import SiloAgent
from fondaco.shared import codec
from fondaco.shared.codec import Shapes
from fondaco.shared.errors import ConfigError, RefusalError
from fondaco.shared.privacy.plan import Cohort
from fondaco.shared.records import MaskedUpdate, PrivateUpdate
from fondaco.shared.secagg import assembly

BLOBS = {"hello": "task", "share": "roster", "confirm": "survivors", "unmask": "certificate"}


def _secrets(silos, name=ME):
    return silos.agents[name]._masked._load().session.secrets


def _spellings(seed):
    texts = [base64.b64encode(seed), seed.hex().encode()]
    return [seed, *texts, *(base64.b64encode(bytes(n) + seed)[4 + n : 20] for n in (1, 2))]


def _on_disk(silos, seed):
    """Return which files of all silos hold a seed, in any spelling."""
    files = [path for path in silos.folder.rglob("*") if path.is_file()]
    blobs = {path: path.read_bytes() for path in files}
    return [p for p, blob in blobs.items() for text in _spellings(seed) if text in blob]


# ---- steps ----


def test_steps_in_their_order_leave_one_debit_release_and_unmask_each(silos):
    asked = silos.round().until("unmask")
    silos.round("gram").until("unmask")
    types = [r["type"] for r in silos.records()]
    assert types[-6:] == ["DEBIT", "RELEASE", "UNMASK"] * 2
    release, unmask = silos.records("RELEASE")[0], silos.records("UNMASK")[0]
    assert release["masked"] == asked.known.digest
    assert unmask["survivors"] == asked.survivors.digest
    assert silos.records("REFUSAL") == []


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("anew", [False, True], ids=["same agent", "agent started again"])
def test_same_request_gets_the_same_bytes(silos, step, anew):
    asked = silos.round().until("unmask")
    before = silos.records()
    if anew:
        silos.agents = {name: silos.agent(name) for name in silos.names}
    if step == "release":
        first = asked.sent
        again = {n: asked.release(asked.deliveries[n], n) for n in silos.names}
    else:
        message = getattr(asked, BLOBS[step])
        first = {n: asked.ask(step, message, n) for n in silos.names}
        again = {n: asked.ask(step, message, n) for n in silos.names}
        known = {"confirm": "confirmed", "unmask": "unmasked"}.get(step)
        if known:
            assert first == {n: said.to_bytes() for n, said in getattr(asked, known).items()}
    assert again == first
    assert silos.records() == before


def test_answer_to_share_is_never_drawn_twice(silos):
    """Fresh shares under the same keys would tell the seed's polynomial."""
    asked = silos.round().until("hello")
    first = asked.ask("share", asked.roster)
    silos.agents[ME] = silos.agent(ME)
    assert asked.ask("share", asked.roster) == first


def test_masked_bytes_are_no_plain_ones(silos):
    asked = silos.round().until("release")
    shapes = Shapes.of_plan(silos.plan)
    update = codec.decode(asked.sent[ME], MaskedUpdate, shapes)
    assert update.participants == asked.known.digest
    with pytest.raises(Exception, match=r"MaskedUpdate|PrivateUpdate"):
        codec.decode(asked.sent[ME], PrivateUpdate, shapes)
    words = np.concatenate(
        [codec.decode(blob, MaskedUpdate, shapes).values for blob in asked.sent.values()]
    )
    assert np.unpackbits(words.view(np.uint8)).mean() == pytest.approx(0.5, abs=0.1)


def test_nothing_is_released_without_a_debit(silos, monkeypatch):
    """The debit is on disk before the numbers are computed, and the release before they leave."""
    asked, seen = silos.round().until("share"), []
    real = SiloAgent._release

    def watched(agent, *given):
        seen.extend(r["type"] for r in silos.records("DEBIT", "RELEASE"))
        return real(agent, *given)

    monkeypatch.setattr(SiloAgent, "_release", watched)
    asked.release(asked.deliveries[ME])
    assert seen == ["DEBIT"]
    assert [r["type"] for r in silos.records("DEBIT", "RELEASE")] == ["DEBIT", "RELEASE"]


def test_debit_without_a_release_unmasks_nothing(silos, monkeypatch):
    """Killed between the two: the silo is no survivor until it has released."""
    asked = silos.round().until("share")
    with monkeypatch.context() as patch:
        patch.setattr(SiloAgent, "_release", _full_disk)
        with pytest.raises(OSError, match="disk"):
            asked.release(asked.deliveries[ME])
    asked._release([n for n in silos.names if n != ME])
    asked.survivors = assembly.survivors_of(asked.known, {**asked.words, ME: asked.word(ME)})
    silos.refused("out-of-order", lambda: asked.ask("confirm", asked.survivors))
    certificate = asked.certified(asked.survivors)
    silos.refused_as_before("out-of-order", lambda: asked.ask("unmask", certificate))
    asked.until("unmask")
    assert len(silos.records("DEBIT")) == len(silos.records("RELEASE")) == 1


def _full_disk(*given):
    raise OSError("disk is full")


# ---- plain and masked ----


def test_plain_request_under_a_masked_plan_is_refused(silos):
    silos.refused("unmasked", lambda: silos.me.run_round(silos.request()))
    assert silos.records("DEBIT") == []


def test_masked_request_under_a_plain_plan_is_refused(silos, make_plan, make_roster):
    asked = silos.round().until("share")
    plan = make_plan(n_silos=5, **make_roster(5, witnesses=0))
    silos.plan, silos.folder = plan, silos.folder / "plain"
    silos.agents[ME] = silos.agent(ME)
    request = silos.request()
    silos.refused(
        "unmasked", lambda: silos.me.run_round(request, "", asked.deliveries[ME].to_bytes())
    )
    assert silos.records("DEBIT") == []


def test_step_of_a_masked_sum_under_a_plain_plan_is_refused(silos, make_plan, make_roster):
    plan = make_plan(n_silos=5, **make_roster(5, witnesses=0))
    silos.plan, silos.folder = plan, silos.folder / "plain"
    silos.agents[ME] = silos.agent(ME)
    asked = Asked(silos)
    silos.refused("unmasked", lambda: asked.ask("hello", asked.task))


@pytest.mark.parametrize("n_min", [1, 2, 3])
def test_plan_of_masks_among_too_few_is_none(make_plan, make_masked, n_min):
    cohort = Cohort(n_silos=5, n_min=n_min, t_collude=0)
    with pytest.raises(ConfigError, match="masked sums need"):
        make_plan(n_silos=5, cohort=cohort, **make_masked(5))


def test_plan_of_a_single_silo_is_none(make_plan, make_masked):
    with pytest.raises(ConfigError):
        make_plan(n_silos=1, **make_masked(1))


# ---- the owner leaves ----


@pytest.mark.parametrize("step", ["release", "unmask"])
def test_nothing_leaves_after_the_owner_has_left(silos, step):
    before = {"release": "share", "unmask": "confirm"}[step]
    asked = silos.round().until(before)
    with silos.me._ledger() as ledger:
        ledger.approve(silos.plan, approved=0, reason="enough")
    work = {
        "release": lambda: asked.release(asked.deliveries[ME]),
        "unmask": lambda: asked.ask("unmask", asked.certificate),
    }[step]
    silos.refused("left", work)
    assert silos.records("UNMASK") == []
    assert len(silos.records("DEBIT")) == (step == "unmask")


def test_no_session_begins_after_the_owner_has_left(silos):
    asked = silos.round()
    with silos.me._home.alone(), silos.me._ledger() as ledger:
        ledger.approve(silos.plan, approved=0, reason="enough")
    silos.refused("left", lambda: asked.ask("hello", asked.task))
    assert silos.session_files() == []


# ---- secrets ----


def test_session_is_its_owners_alone_and_sealed(silos):
    asked = silos.round()
    for step in STEPS[:4]:
        getattr(asked, f"_{step}")(silos.names)
        for name in silos.names:
            drawn = _secrets(silos, name)
            for seed in (drawn.mask_seed, drawn.self_seed, drawn.share_seed):
                assert len(seed) >= 16
                assert _on_disk(silos, seed) == []
        for path in (silos.folder / ME / "sessions").iterdir():
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(silos.session_files()) == 2


def test_no_seed_is_kept_after_the_answer_but_what_was_told(silos):
    asked = silos.round().until("confirm")
    drawn = _secrets(silos)
    asked._unmask(silos.names)
    kept = silos.me._masked._load()
    assert kept.session.wiped
    text = kept.to_bytes()
    for seed in (drawn.mask_seed, drawn.share_seed):
        assert not any(spelling in text for spelling in _spellings(seed))
    assert asked.unmasked[ME].self_seed == drawn.self_seed
    assert kept.session.mask_shares == kept.session.self_shares == {}
    assert _on_disk(silos, drawn.mask_seed) == []


@pytest.mark.parametrize("end", ["last model", "next round", "late"])
def test_key_of_a_session_is_overwritten_when_it_is_over(silos, end, make_model, monkeypatch):
    silos.round().until("confirm")
    key = next((silos.folder / ME / "sessions").glob("*.key"))
    witness = silos.folder / "hard link"
    os.link(key, witness)
    assert any(witness.read_bytes())
    if end == "last model":
        silos.me.receive(make_model(silos.plan))
        assert silos.session_files() == []
    elif end == "next round":
        silos.round("gram").until("hello")
        assert key.read_bytes() != bytes(32)
    else:
        monkeypatch.setattr("fondaco.client.masking._now", lambda: 2**40)
        silos.me.status()
        assert silos.session_files() == []
    assert witness.read_bytes() == bytes(32)


def test_session_that_a_kill_left_half_written_is_no_session(silos):
    """Torn, or sealed under another key: as good as none, before anything has left."""
    for num, damage in enumerate((b"", b"torn", bytes(200)), start=1):
        asked = silos.round(attempt=num).until("share", silos.names)
        (path,) = (silos.folder / ME / "sessions").glob("*.json")
        path.write_bytes(damage)
        silos.refused("no-session", lambda asked=asked: asked.release(asked.deliveries[ME]))
        assert silos.records("DEBIT") == []
    silos.round().until("unmask")


# ---- how much is written ----


def test_refusals_written_down_are_few_whatever_is_asked(silos):
    """Else a coordinator could fill the book and then go unseen."""
    asked = silos.round().until("hello")
    for num in range(1, 300):
        changes = [
            {"round_num": num},
            {"attempt": num + 1, "expires": 5},
            {"kind": f"kind {num}"},
            {"plan_digest": f"sha256:{num}"},
            {"attempt": num + 1, "expires": 2**50 + num},
            {"run_id": f"run {num}"},
        ][num % 6]
        other = Asked(silos, changes=changes)
        with pytest.raises(RefusalError):
            other.ask("hello", other.task)
    codes = [r["code"] for r in silos.records("REFUSAL")]
    assert len(codes) <= 6 * len(silos.plan.releases)
    assert {"other-plan", "late", "not-in-plan", "other-request"} <= set(codes)
    silos.refused("too-few", lambda: asked.ask("share", asked.roster_with(without=silos.names[1:])))
