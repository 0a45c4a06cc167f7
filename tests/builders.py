"""What tests of several folders build alike: silos of few rows, orders, models and settings."""

from dataclasses import replace

import numpy as np

from fondaco.client.dataset import Fold, Rows, SiloDataset
from fondaco.shared import codec
from fondaco.shared.catalogue import Catalogue
from fondaco.shared.chain.keys import COORDINATOR, Identity
from fondaco.shared.chain.notes import cosign
from fondaco.shared.features import item_features
from fondaco.shared.records import GlobalModel, RoundRequest
from fondaco.shared.vocabulary import Vocabulary

SMALL_DATA = (
    "dataset.n_users=300",
    "dataset.n_items=100",
    "dataset.declared_users=300",
    "privacy.head=40",
)
SMALL_RUN = (*SMALL_DATA, "evaluation.bootstrap=10", "evaluation.silos=1", "baselines=[]")
PLAN_CONFIG = """
name = "north sea"
[public]
declared_users = 500
[privacy]
trust = "silo"
head = 4
"""
ITEMS_CSV = "item_id,text,price\nb,rug,\na,lamp,3.5\nc,lamp,\nd,,\ne,,\n"

CANARY = "canary-customer-4711"
PAIRS = ((0, 0), (0, 2), (1, 3))
HEAD = np.array([4, 2, 0, 1])
NONE = np.empty(0, dtype=np.int64)
SERVER = Identity.seeded(0, COORDINATOR)

N_ITEMS, N_HEAD = 24, 12


def silo_of(pairs=PAIRS, users=(CANARY, f"{CANARY}-too"), silo_id="north"):
    """Return a silo of five items whose (customer, item) pairs are all in the train part."""
    user_nums, item_nums = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    rows = Rows(user_nums=user_nums, item_nums=item_nums, times=np.zeros(len(user_nums)))
    empty = rows.take(np.zeros(len(rows), dtype=bool))
    fold = Fold(user_nums=NONE, history=empty, targets=empty)
    users = np.array(users)
    return SiloDataset(
        silo_id=silo_id, user_ids=users, n_items=5, train=rows, valid=fold, test=fold
    )


def request_of(plan, kind="popularity", **changes):
    """Return the bytes of an honest coordinator's order, with some fields changed."""
    request = RoundRequest(
        plan_digest=plan.digest,
        code_digest=plan.code_digest,
        kind=kind,
        round_num={"popularity": 1, "gram": 2}[kind],
        attempt=1,
        model_digest="",
        head=HEAD if kind == "gram" else NONE,
        parameters=np.empty(0, dtype=np.float32),
    )
    return codec.encode(replace(request, **changes))


def witnessed(ledger, witnesses):
    """Return the ledger's present head as the coordinator and these witnesses sign it."""
    note = ledger.chain.note()
    signers = (SERVER, *witnesses)
    return note + "".join(cosign(note, signer, 1_700_000_000) for signer in signers)


def zero_model(plan, **changes):
    """Return a plan's last model, all of whose numbers are zero, with some fields changed."""

    def zeros(*shape):
        return np.zeros(shape, dtype=np.float32)

    items, head, shapes = plan.n_items, plan.head, codec.Shapes.of_plan(plan)
    model = GlobalModel(
        plan_digest=plan.digest,
        catalogue_digest=plan.catalogue_digest,
        after_round=len(plan.releases),
        noisy_popularity=zeros(items),
        popularity=zeros(items),
        head=np.arange(head),
        head_popularity=zeros(head),
        gram_factors=zeros(head, 1),
        gram_diagonal=zeros(head),
        gram_top=zeros(head),
        kernel_weights=zeros(1),
        item_in=zeros(head, 1),
        item_out=zeros(items, 1),
        spectrum=zeros(head),
        noise_edge=zeros(),
        parameters=zeros(sum(shapes.n_parameters.values())),
        fusion=zeros(*shapes.fusion),
    )
    return replace(model, **changes)


def rows_of(triples):
    """Return (customer, item, time) triples as rows."""
    table = np.array(triples, dtype=np.float64).reshape(-1, 3)
    return Rows(
        user_nums=table[:, 0].astype(np.int64),
        item_nums=table[:, 1].astype(np.int64),
        times=table[:, 2],
    ).sorted()


def fold_of(history, targets):
    """Return the customers of the targets with what they took before."""
    known, targets = rows_of(history), rows_of(targets)
    users = np.unique(targets.user_nums)
    mine = known.take(np.isin(known.user_nums, users))
    return Fold(user_nums=users, history=mine, targets=targets)


def taste_catalogue():
    """Return items of two tastes, odd and even ones."""
    return Catalogue(
        items=Vocabulary(tuple(f"i{num:02d}" for num in range(N_ITEMS))),
        texts=tuple(f"{'odd' if num % 2 else 'even'} thing{num % 5}" for num in range(N_ITEMS)),
        categories=tuple(f"c{num % 3}" for num in range(N_ITEMS)),
        brands=("",) * N_ITEMS,
        prices=np.linspace(1, 9, N_ITEMS),
    )


def taste_silo(draw_times, n_users=12, seed=0):
    """Customers of one taste each: four items at drawn times, two, two; the last took only one."""
    rng = np.random.default_rng(seed)
    train, valid, test = [], [], []
    for user in range(n_users):
        mine = rng.permutation(np.arange(user % 2, N_ITEMS, 2))[:8]
        times = draw_times(rng)
        train += [(user, item, time) for item, time in zip(mine[:4], times, strict=True)]
        valid += [(user, item, 110.0) for item in mine[4:6]]
        test += [(user, item, 120.0) for item in mine[6:]]
    test.append((n_users, N_ITEMS - 1, 121.0))
    return SiloDataset(
        silo_id="north",
        user_ids=np.array([f"u{num}" for num in range(n_users + 1)]),
        n_items=N_ITEMS,
        train=rows_of(train),
        valid=fold_of(train, valid),
        test=fold_of(train + valid, test),
    )


def taste_values(seed):
    """Fields of a model in which items of low numbers are popular and tastes are told apart."""
    rng = np.random.default_rng(seed)
    taste = np.where(np.arange(N_HEAD) % 2, 1.0, -1.0)
    popularity = np.linspace(20, 2, N_ITEMS)
    values = {
        "noisy_popularity": popularity + rng.normal(0, 1, N_ITEMS),
        "popularity": popularity,
        "head_popularity": popularity[:N_HEAD],
        "gram_factors": np.column_stack([np.ones(N_HEAD), taste]) * 2.0,
        "gram_diagonal": np.full(N_HEAD, 3.0),
        "gram_top": np.full(N_HEAD, 2.0),
        "kernel_weights": np.full(len(item_features(taste_catalogue()).blocks), 0.1),
        "item_in": rng.normal(size=(N_HEAD, 3)),
        "item_out": rng.normal(size=(N_ITEMS, 3)),
        "spectrum": np.linspace(9, -9, N_HEAD),
        "noise_edge": np.array(4.0),
    }
    floats = {name: value.astype(np.float32) for name, value in values.items()}
    return {**floats, "head": np.arange(N_HEAD)}
