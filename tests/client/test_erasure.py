"""Erasing a customer: out of the next draw, out for good, and named nowhere."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fondaco.client.agent import SiloAgent
from fondaco.client.dataset import Fold, Rows, SiloDataset
from fondaco.client.dataset_files import load_silo, save_silo
from fondaco.client.erasure import Erasures, erase, without
from fondaco.client.forgetting import forget
from fondaco.client.home import SiloHome
from fondaco.client.limits import new_policy
from fondaco.client.owner import Owner
from fondaco.shared import codec
from fondaco.shared.chain.keys import Identity
from fondaco.shared.codec import Shapes
from fondaco.shared.errors import ConfigError, DataError, RefusalError
from fondaco.shared.privacy.ledger import Ledger
from fondaco.shared.records import PrivateUpdate, RoundRequest

NONE = np.empty(0, dtype=np.int64)
HEAD = np.arange(4)
GONE = "canary-customer-4711"
USERS = ("bob", GONE, "cy")
PAIRS = ((0, 1), (0, 2), (1, 4), (1, 0), (1, 3), (2, 3))


def _rows(pairs):
    array = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    return Rows(
        user_nums=array[:, 0], item_nums=array[:, 1], times=np.arange(len(array), dtype=float)
    )


def _fold(pairs):
    rows = _rows(pairs)
    return Fold(user_nums=np.unique(rows.user_nums), history=_rows(pairs), targets=rows)


def _dataset(users=USERS, pairs=PAIRS):
    return SiloDataset(
        silo_id="north",
        user_ids=np.array(users),
        n_items=5,
        train=_rows(pairs),
        valid=_fold(pairs[:3]),
        test=_fold(pairs[2:]),
        interim=_rows(pairs[::2]),
    )


def _without_gone():
    return without(_dataset(), np.array([False, True, False]))


def _request(plan, kind="popularity"):
    request = RoundRequest(
        plan_digest=plan.digest,
        code_digest=plan.code_digest,
        kind=kind,
        round_num=1 if kind == "popularity" else 2,
        attempt=1,
        model_digest="",
        head=HEAD if kind == "gram" else NONE,
        parameters=np.empty(0, dtype=np.float32),
    )
    return codec.encode(request)


@pytest.fixture
def make_agent(plan, catalogue, tmp_path):
    def make(dataset, folder="silo", **options):
        home = SiloHome(tmp_path / folder, "north")
        return SiloAgent(dataset, plan, catalogue, home, 0, **options)

    return make


def _values(agent, kind):
    blob = agent.run_round(_request(agent.plan, kind))
    return codec.decode(blob, PrivateUpdate, Shapes.of_plan(agent.plan)).values


def _list_of(agent):
    return Erasures(agent._home.erased, agent._secret)


# ---- the next draw ----


@pytest.mark.parametrize("keep_open", [True, False])
def test_running_agent_draws_without_the_customer_at_once(make_agent, keep_open):
    agent = make_agent(_dataset(), keep_open=keep_open)
    never, always = make_agent(_without_gone(), "never"), make_agent(_dataset(), "always")
    assert np.array_equal(_values(agent, "popularity"), _values(always, "popularity"))
    _list_of(agent).add(GONE)
    assert np.array_equal(_values(agent, "gram"), _values(never, "gram"))
    assert not np.array_equal(_values(never, "gram"), _values(always, "gram"))


def test_nothing_computed_with_the_customer_is_kept(make_agent):
    agent = make_agent(_dataset())
    _values(agent, "popularity")
    held = agent._histories, agent._timelines, agent._rows_digest
    _list_of(agent).add(GONE)
    _values(agent, "gram")
    assert GONE not in agent.dataset.user_ids.tolist()
    for new, old in zip(
        (agent._histories, agent._timelines, agent._rows_digest), held, strict=True
    ):
        assert new is not old


def test_reloaded_agent_draws_without_the_customer_even_if_the_rows_come_back(make_agent):
    _list_of(make_agent(_dataset())).add(GONE)
    agent, never = make_agent(_dataset()), make_agent(_without_gone(), "never")
    for kind in ("popularity", "gram"):
        assert np.array_equal(_values(agent, kind), _values(never, kind))


def test_release_made_before_is_sent_again_as_it_was(make_agent):
    agent = make_agent(_dataset())
    before = agent.run_round(_request(agent.plan))
    _list_of(agent).add(GONE)
    assert agent.run_round(_request(agent.plan)) == before


@pytest.mark.parametrize("gone", [USERS, ("nobody",), ()], ids=len)
def test_anybody_everybody_or_nobody_may_be_erased(make_agent, gone):
    agent = make_agent(_dataset())
    for user in gone:
        _list_of(agent).add(user)
    assert len(_values(agent, "popularity")) == 5
    assert agent.dataset.n_users == 3 - len(set(gone) & set(USERS))


# ---- the others ----

PART = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=12)


def _told(dataset):
    """Return every part's rows as (customer's id, item, time)."""
    parts = {
        "train": dataset.train,
        "valid.history": dataset.valid.history,
        "valid.targets": dataset.valid.targets,
        "test.history": dataset.test.history,
        "test.targets": dataset.test.targets,
        "interim": dataset.interim,
    }
    return {
        name: list(
            zip(
                dataset.user_ids[rows.user_nums].tolist(),
                rows.item_nums.tolist(),
                rows.times.tolist(),
                strict=True,
            )
        )
        for name, rows in parts.items()
    }


@settings(max_examples=60, deadline=None)
@given(st.lists(PART, min_size=4, max_size=4), st.sets(st.integers(0, 4)))
def test_others_keep_every_row_in_its_place(parts, nums):
    users = np.array([f"user-{num}" for num in range(5)])
    dataset = SiloDataset(
        silo_id="north",
        user_ids=users,
        n_items=5,
        train=_rows(parts[0]),
        valid=_fold(parts[1]),
        test=_fold(parts[2]),
        interim=_rows(parts[3]),
    )
    gone = np.isin(np.arange(5), list(nums))
    kept, ids = without(dataset, gone), set(users[~gone].tolist())
    before, after = _told(dataset), _told(kept)
    for name, rows in before.items():
        assert after[name] == [row for row in rows if row[0] in ids]
    for part in ("valid", "test"):
        old, new = getattr(dataset, part), getattr(kept, part)
        stays = [user for user in users[old.user_nums].tolist() if user in ids]
        assert kept.user_ids[new.user_nums].tolist() == stays
    assert kept.user_ids.tolist() == users[~gone].tolist()


def test_unknown_customer_is_named_and_nobody_is_erased():
    with pytest.raises(DataError, match="no customer"):
        erase(_dataset(), "nobody")


# ---- the list ----


def test_list_holds_keyed_hashes_for_its_owner_alone(tmp_path):
    erasures = Erasures(tmp_path / "erased" / "north.txt", b"x" * 32)
    assert erasures.tokens() == frozenset()
    for user in (GONE, "bob", GONE):
        erasures.add(user)
    text = erasures.path.read_text()
    assert len(erasures.tokens()) == len(text.splitlines()) == 2
    assert GONE not in text
    assert erasures.path.stat().st_mode & 0o077 == 0
    other = Erasures(tmp_path / "other.txt", b"y" * 32)
    other.add(GONE)
    assert not other.tokens() & erasures.tokens()


# ---- the owner ----


@pytest.fixture
def owner(tmp_path):
    made = Owner.make(tmp_path / "shop", "north")
    save_silo(_dataset(), made.rows)
    return made


def _agent_of(owner, plan, catalogue, **options):
    return SiloAgent(
        load_silo(owner.rows), plan, catalogue, owner.home, identity=owner.identity, **options
    )


def _files_naming(folder, user):
    """Return the files in which an id stands, in any text that our files are written in."""
    spellings = [user.encode(), user.encode("utf-32-le"), user.encode("utf-16-le")]
    return [
        path.name
        for path in sorted(folder.rglob("*"))
        if path.is_file() and any(text in path.read_bytes() for text in spellings)
    ]


def test_erased_customers_id_stands_nowhere_any_more(owner, plan, catalogue):
    agent = _agent_of(owner, plan, catalogue)
    agent.run_round(_request(plan))
    assert _files_naming(owner.folder.parent, GONE)
    assert forget(owner, GONE) == 9
    agent.run_round(_request(plan, "gram"))
    agent.close()
    assert _files_naming(owner.folder.parent, GONE) == []
    assert _files_naming(owner.folder.parent, "bob")


def test_erasure_is_recorded_without_saying_who(owner):
    forget(owner, GONE)
    with owner.ledger() as ledger:
        record = ledger.records()[-1]
        assert GONE not in "".join(ledger.chain.lines())
    assert set(record) == {"type", "count", "seq", "ts"}
    assert (record["type"], record["count"]) == ("ERASURE", "1 to 9")


def test_erased_rows_are_off_the_disk_and_the_others_are_there(owner):
    before = _told(load_silo(owner.rows))
    forget(owner, GONE)
    kept = _told(load_silo(owner.rows))
    assert kept == {name: [row for row in rows if row[0] != GONE] for name, rows in before.items()}
    assert forget(owner, GONE) == 0
    assert [r["type"] for r in _records(owner)] == ["GENESIS", "ERASURE"]


def test_erasure_that_was_killed_before_its_record_gets_it(owner, monkeypatch):
    monkeypatch.setattr(Ledger, "note_erasure", lambda self, n: None)
    forget(owner, GONE)
    monkeypatch.undo()
    assert forget(owner, GONE) == 0
    assert [r["type"] for r in _records(owner)] == ["GENESIS", "ERASURE"]


def test_erasure_of_rows_that_came_back_is_noted_again(owner):
    for _ in range(2):
        forget(owner, GONE)
        save_silo(_dataset(), owner.rows)
    assert [r["type"] for r in _records(owner)] == ["GENESIS", "ERASURE", "ERASURE"]


def _records(owner):
    with owner.ledger() as ledger:
        return ledger.records()


def test_customer_unknown_to_the_silo_leaves_no_record(owner):
    with pytest.raises(DataError, match="no customer"):
        forget(owner, "nobody")
    assert not owner.home.erased.exists()
    assert not owner.home.ledger.exists()


def test_customer_stays_out_when_a_backup_brings_the_rows_back(owner, plan, catalogue):
    forget(owner, GONE)
    save_silo(_dataset(), owner.rows)
    agent = _agent_of(owner, plan, catalogue)
    agent.run_round(_request(plan))
    assert GONE not in agent.dataset.user_ids.tolist()


def test_customer_stays_out_when_the_owner_has_a_new_key(owner, plan, catalogue):
    forget(owner, GONE)
    save_silo(_dataset(), owner.rows)
    rotated = owner.rotate()
    kept = _agent_of(rotated, plan, catalogue)
    kept.run_round(_request(plan))
    assert GONE not in kept.dataset.user_ids.tolist()


def test_lost_secret_that_a_new_key_would_make_otherwise_is_asked_for(owner, plan, catalogue):
    """With another secret no erased customer would be known again."""
    forget(owner, GONE)
    rotated = owner.rotate()
    (path,) = (owner.folder / "secrets").iterdir()
    path.unlink()
    with pytest.raises(ConfigError, match=r"north\.key is gone, .* bring it back from a backup"):
        _agent_of(rotated, plan, catalogue).run_round(_request(plan))
    rotated.home.ledger.unlink()  # what could tell whether the key is the same
    with pytest.raises(ConfigError, match="bring it back from a backup"):
        rotated.home.secret(rotated.identity)
    assert not path.exists()


def test_lost_secret_that_the_same_key_makes_again_is_made_again(owner, plan, catalogue):
    forget(owner, GONE)
    (path,) = (owner.folder / "secrets").iterdir()
    before = path.read_bytes()
    path.unlink()
    save_silo(_dataset(), owner.rows)
    agent = _agent_of(owner, plan, catalogue)
    agent.run_round(_request(plan))
    assert path.read_bytes() == before
    assert GONE not in agent.dataset.user_ids.tolist()


def test_secret_is_made_by_a_new_key_where_none_was_needed_before(owner):
    with owner.ledger():
        pass
    rotated = owner.rotate()
    forget(rotated, GONE)
    assert rotated.home.secret(rotated.identity) == rotated.identity.secret("keyed-hashes")


def test_erasure_beside_a_running_agent_loses_no_record(owner, plan, catalogue):
    agent = _agent_of(owner, plan, catalogue, keep_open=True)
    agent.run_round(_request(plan))
    forget(owner, GONE)
    agent.run_round(_request(plan, "gram"))
    agent.close()
    assert GONE not in agent.dataset.user_ids.tolist()
    types = [r["type"] for r in _records(owner) if r["type"] in ("DEBIT", "RELEASE", "ERASURE")]
    assert types == ["DEBIT", "RELEASE", "ERASURE", "DEBIT", "RELEASE"]


def test_erasing_does_not_touch_the_owners_other_files(owner):
    owner.pin([Identity.generate("fondaco/south").public])
    with owner.ledger() as ledger:
        ledger.adopt(new_policy(None, 3.0, 4.0, 1e-6))
    before = {
        path.relative_to(owner.folder): (path.read_bytes(), path.stat().st_mode)
        for path in owner.folder.rglob("*")
        if path.suffix in (".pem", ".txt") or path.name == "owner.json"
    }
    forget(owner, GONE)
    for path, facts in before.items():
        now = owner.folder / path
        assert (now.read_bytes(), now.stat().st_mode) == facts
    assert [r["type"] for r in _records(owner)] == ["GENESIS", "POLICY", "ERASURE"]


# ---- leaving ----


def test_owner_who_left_is_asked_in_vain(owner, plan, catalogue):
    agent = _agent_of(owner, plan, catalogue, keep_open=True)
    agent.run_round(_request(plan))
    with Ledger(owner.home.ledger, owner.identity, plan) as ledger:
        ledger.approve(plan, approved=0, reason="we close the shop")
    for _ in range(2):
        with pytest.raises(RefusalError, match="we close the shop") as caught:
            agent.run_round(_request(plan, "gram"))
        assert caught.value.code == "left"
    records = _records(owner)
    left = [r for r in records if r["type"] == "PLAN" and not r["approved"]]
    assert [r["reason"] for r in left] == ["we close the shop"]
    assert [r["code"] for r in records if r["type"] == "REFUSAL"] == ["left"]
    assert len([r for r in records if r["type"] == "DEBIT"]) == 1
    assert owner.approved() is None


def test_answer_has_one_size_whoever_was_erased(make_agent):
    agent, again = make_agent(_dataset()), make_agent(_dataset(), "again")
    for user in USERS:
        _list_of(again).add(user)
    sizes = {len(silo.run_round(_request(agent.plan))) for silo in (agent, again)}
    assert len(sizes) == 1
