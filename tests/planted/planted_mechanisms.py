"""Bugs of the mechanisms: noise, sampling, clipping, counting, the door out."""

from planted_tools import row

NOISE, SUMS, DOOR = "shared.privacy.noise", "shared.privacy.gradients", "shared.privacy.release"
COUNTS, ROWS = "shared.privacy.clipping", "shared.privacy.contribution"

_DRAW = "np.rint(normal * stddev_grid).astype(np.int64)"
_COINS = "drawn = self._words(n_users) < np.uint64(sampling_ppm * 2**64 // EVERYBODY)"
_GAUSS = "noise.gaussian(event.dim, event.silo_stddev_grid)"
_WEIGHTS = "weights = self._bound / np.maximum(np.sqrt(squares), self._clip_norm)"
_ADD = "layer.add_to(self._sum[start : start + layer.dim], weights)"
_TOTAL = "values = np.rint(self._sum).astype(np.int64)"
_SHUFFLED = """size = max(1, n_users * sampling_ppm // EVERYBODY)
        order = getattr(self, "_order", np.arange(0))
        if len(order) < size:
            order = np.append(order, self._words(n_users).argsort())
        self._order = order[size:]
        drawn = np.isin(np.arange(n_users), order[:size])"""
_CLIP_LATE = """norm = max(float(np.linalg.norm(self._sum)), 1e-9)
        values = np.rint(self._sum * min(1.0, self._bound / norm)).astype(np.int64)"""
_MEAN = """mean = np.concatenate(
            [np.einsum("uto,uti->uoi", x.deltas, x.inputs).mean(axis=0).ravel() for x in layers]
        )
        norm = max(float(np.linalg.norm(mean)), self._clip_norm)
        weights = np.full(len(squares), self._bound / norm)"""
_PER_LAYER = """weights = self._bound / np.maximum(
                np.sqrt(layer.squared_norms()), self._clip_norm
            )
            layer.add_to(self._sum[start : start + layer.dim], weights)"""
_CENTRED = """middle = layer.deltas.mean(axis=0) if len(layer.deltas) else 0.0
            layer = Factors(deltas=layer.deltas - middle, inputs=layer.inputs)
            layer.add_to(self._sum[start : start + layer.dim], weights)"""

MECHANISMS = (
    # noise
    row(
        "sigma halved",
        NOISE,
        "conformance: noise scale",
        (_DRAW, "np.rint(normal * (stddev_grid / 2)).astype(np.int64)"),
    ),
    row(
        "variance taken for the standard deviation",
        NOISE,
        "conformance: noise scale",
        (_DRAW, "np.rint(normal * np.sqrt(stddev_grid)).astype(np.int64)"),
    ),
    row(
        "Laplace noise in place of Gaussian, of equal variance",
        NOISE,
        "conformance: noise shape",
        (
            "return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:size]",
            "both = np.concatenate([radius, -radius])[:size]\n"
            "        return np.sign(both) * both**2 / np.sqrt(8.0)",
        ),
    ),
    row(
        "tails cut off at 4 sigma",
        NOISE,
        "conformance: noise tails",
        (_DRAW, "np.rint(np.clip(normal, -4, 4) * stddev_grid).astype(np.int64)"),
    ),
    row(
        "uniforms of 32 bits, which have no tails",
        NOISE,
        "property: tails_reach_nine_sigma",
        ("(coarse + fine) * 2.0**-53", "(np.floor((coarse + fine) * 2.0**-21) + 0.5) * 2.0**-32"),
    ),
    row(
        "float noise in place of integers",
        NOISE,
        "conformance: integer lattice",
        ("np.empty(dim, dtype=np.int64)", "np.empty(dim, dtype=np.float64)"),
        (_DRAW, "normal * stddev_grid"),
    ),
    row(
        "noise in float32, whose low bits are always 0",
        NOISE,
        "conformance: noise support",
        (_DRAW, "np.rint((normal * stddev_grid).astype(np.float32)).astype(np.int64)"),
    ),
    row(
        "a fixed seed in deployment",
        NOISE,
        "conformance: system streams",
        ("cls(os.urandom(32),", "cls(bytes(32),"),
    ),
    row(
        "seeded by the process number",
        NOISE,
        "conformance: system streams",
        ("cls(os.urandom(32),", "cls(os.getpid().to_bytes(32),"),
    ),
    row(
        "generator seeded once, copied into every worker process",
        NOISE,
        "conformance: system streams",
        ("_CHUNK = 1 << 16", "_CHUNK = 1 << 16\n_COUNT = iter(range(1, 1 << 60))"),
        ("cls(os.urandom(32),", "cls(next(_COUNT).to_bytes(32),"),
    ),
    row(
        "one stream for two silos",
        NOISE,
        "conformance: seeded streams",
        ("[str(seed), *labels]", "[str(seed), *labels[1:]]"),
    ),
    row(
        "noise reused in every round",
        NOISE,
        "conformance: seeded streams",
        ("[str(seed), *labels]", "[str(seed), *labels[:2]]"),
    ),
    row(
        "both halves of a Box-Muller pair alike",
        NOISE,
        "conformance: noise autocorrelation",
        ("radius * np.sin(angle)])", "radius * np.cos(angle)])"),
    ),
    row(
        "keystream restarted for every draw",
        NOISE,
        "conformance: noise of local steps",
        ("self.source = source", "self.source = source\n        self._key = key"),
        (
            "noise = np.empty(dim",
            "self._encryptor = Cipher(\n"
            "            algorithms.ChaCha20(self._key, bytes(16)), mode=None\n"
            "        ).encryptor()\n"
            "        noise = np.empty(dim",
        ),
    ),
    # sampling
    row(
        "fixed batches accounted as Poisson",
        NOISE,
        "conformance: sample sizes",
        (_COINS, "drawn = self._words(n_users).argsort() < n_users * sampling_ppm // EVERYBODY"),
    ),
    row(
        "shuffled epochs accounted as Poisson",
        NOISE,
        "conformance: sampling independence",
        (_COINS, _SHUFFLED),
    ),
    row(
        "sampling probability depends on the customer",
        NOISE,
        "conformance: sampling frequency",
        (_COINS, "drawn = self._words(n_users) / 2.0**64 < np.linspace(\n"
                 "            0.8, 1.2, n_users) * (sampling_ppm / EVERYBODY)"),
    ),
    row(
        "coins of 8 bits",
        NOISE,
        "conformance: sampling frequency",
        (_COINS, "drawn = self._words(n_users) >> np.uint64(56) < np.uint64(\n"
                 "            sampling_ppm * 256 // EVERYBODY)"),
    ),
    row(
        "one sample reused for two releases",
        DOOR,
        "conformance: sample reuse",
        ("if sample.used:", "if False:"),
    ),
    row(
        "local steps on one sample",
        DOOR,
        "conformance: sample reuse",
        ("if total.sample is not sample:", "if False:"),
        ("if sample.used:", "if False:"),
    ),
    row(
        "a customer added twice under one sample",
        SUMS,
        "conformance: sample reuse",
        ("if len(np.setdiff1d(user_nums, self._left)) or", "if False and"),
    ),
    # clipping
    row(
        "clip after averaging",
        SUMS,
        "conformance: gradient sensitivity",
        (_WEIGHTS, "weights = np.full(len(squares), self._bound / self._clip_norm)"),
        (_TOTAL, _CLIP_LATE),
    ),
    row(
        "no clipping at all",
        SUMS,
        "attack: one-run canaries",
        (_WEIGHTS, "weights = np.full(len(squares), self._bound / self._clip_norm)"),
        also=("conformance: gradient sensitivity",),
    ),
    row(
        "clip of the batch's mean",
        SUMS,
        "conformance: gradient sensitivity",
        (_WEIGHTS, _MEAN),
    ),
    row(
        "per-layer clipping counted as flat",
        SUMS,
        "conformance: gradient sensitivity",
        (_ADD, _PER_LAYER),
    ),
    row(
        "clip and scale in the wrong order",
        SUMS,
        "conformance: gradient sensitivity",
        (_WEIGHTS, "weights = self._bound / self._clip_norm / np.maximum(np.sqrt(squares), 1.0)"),
    ),
    row(
        "norm of repeated rows as if they were distinct (EmbeddingBag)",
        SUMS,
        "conformance: gradient sensitivity",
        ("return np.asarray(squares + _CANCELLED", "squares = lengths.sum(axis=1)\n"
         "        return np.asarray(squares + 0.0 * _CANCELLED"),
    ),
    row(
        "squared norm taken for the norm",
        SUMS,
        "conformance: gradient sensitivity",
        (_WEIGHTS, "weights = self._bound / np.maximum(squares, self._clip_norm)"),
    ),
    row(
        "the last layer is not clipped",
        SUMS,
        "conformance: gradient sensitivity",
        (
            "squares = np.sum([layer.squared_norms() for layer in layers], axis=0)",
            "squares = np.sum([x.squared_norms() for x in layers[:-1] or layers], axis=0)",
        ),
    ),
    row(
        "NaN passes the clip",
        SUMS,
        "conformance: any input",
        ("sound = np.isfinite(squares)", "sound = np.ones(len(squares), dtype=bool)"),
        (_TOTAL, "if np.isnan(self._sum).any():\n"
                 "            raise ValueError('NaN')\n"
                 "        values = np.rint(self._sum).astype(np.int64)"),
    ),
    row(
        "sensitivity without room for rounding",
        SUMS,
        "conformance: gradient sensitivity",
        ("bound = grid * (1.0 - FLOAT_SLACK) - math.sqrt(dim)", "bound = float(grid)"),
    ),
    row(
        "customers coupled by batch statistics",
        SUMS,
        "conformance: customers alone",
        (_ADD, _CENTRED),
    ),
    row(
        "mean over the actual batch in place of a sum",
        SUMS,
        "conformance: customers alone",
        (_TOTAL, "values = np.rint(self._sum / max(1, len(self._sample.user_nums)))\n"
         "        values = values.astype(np.int64)"),
    ),
    # counts
    row(
        "repeated rows of one customer count each",
        ROWS,
        "conformance: popularity sensitivity",
        ("pairs = np.unique(", "pairs = np.sort("),
        ("items) <= 0):", "items) < 0):"),
    ),
    row(
        "rows of one customer as several customers",
        ROWS,
        "conformance: popularity sensitivity",
        (
            "    known = (item_nums >= 0)",
            "    n_users = max(n_users, len(user_nums))\n"
            "    user_nums = np.arange(len(user_nums))\n"
            "    known = (item_nums >= 0)",
        ),
    ),
    row(
        "vocabulary from private purchases",
        COUNTS,
        "conformance: any input",
        (
            "values = np.zeros(histories.n_items, dtype=np.int64)",
            "values = np.zeros(histories.item_nums.max(initial=0) + 1, dtype=np.int64)",
        ),
    ),
    row(
        "weights rounded up",
        COUNTS,
        "conformance: popularity sensitivity",
        ("weight = math.isqrt(grid**2 // n)", "weight = math.isqrt(grid**2 // n) + 1"),
        ("if squared_norm > grid**2:", "if False:"),
    ),
    row(
        "pairs of the Gram counted twice",
        COUNTS,
        "conformance: gram sensitivity",
        ("off = math.isqrt(2 * grid**2 // n**2)", "off = math.isqrt(4 * grid**2 // n**2)"),
        ("if squared_norm > grid**2:", "if False:"),
    ),
    # the door
    row(
        "noise over the batch size",
        DOOR,
        "conformance: noise scale with customers",
        (_GAUSS, "noise.gaussian(\n        event.dim, event.silo_stddev_grid\n"
                 "        // max(1, len(sample.user_nums) if sample else 1)\n    )"),
        also=("attack: one-run canaries",),
    ),
    row(
        "noisy sum divided by the actual batch size",
        DOOR,
        "conformance: noise of local steps",
        ("_noisy(total, debit, noise) / event.sens_grid",
         "_noisy(total, debit, noise) / event.sens_grid / max(1, len(sample.user_nums))"),
    ),
    row(
        "noise only on touched rows",
        DOOR,
        "conformance: noise on untouched numbers",
        (_GAUSS, f"np.where(total.values != 0, {_GAUSS}, 0)"),
        also=("attack: one-run canaries",),
    ),
    row(
        "the last number, a bias, without noise",
        DOOR,
        "conformance: noise on untouched numbers",
        (_GAUSS, f"np.append({_GAUSS}[:-1], 0)"),
    ),
    row(
        "noise switched off",
        DOOR,
        "attack: one-run canaries",
        (_GAUSS, f"0 * {_GAUSS}"),
        also=("conformance: noise scale",),
    ),
    row(
        "metrics without noise",
        DOOR,
        "conformance: noise scale",
        (_GAUSS, f"{_GAUSS} * (event.kind != 'fusion')"),
    ),
    row(
        "noise drawn once for all local steps",
        DOOR,
        "conformance: noise of local steps",
        (_GAUSS, f"noise.__dict__.setdefault('kept', {_GAUSS})"),
    ),
    row(
        "noise of one length kept and used again",
        DOOR,
        "conformance: noise of silos and rounds",
        ("MAX_MOVED = 2.0**50", "_KEPT = {}\nMAX_MOVED = 2.0**50"),
        (_GAUSS, f"_KEPT.setdefault(event.dim, {_GAUSS})"),
    ),
    row(
        "noise of the joint release halved by every silo",
        DOOR,
        "conformance: noise shares",
        (_GAUSS, "noise.gaussian(event.dim, event.silo_stddev_grid // 2)"),
    ),
    row(
        "gradient may write into the update",
        DOOR,
        "conformance: local steps",
        ("gradient(parameters.copy(), sample)", "gradient(parameters, sample)"),
    ),
    row(
        "whether a release fails depends on the data",
        DOOR,
        "conformance: local steps",
        ("    moved = np.nan_to_num(",
         "    if not np.isfinite(parameters).all():\n"
         "        raise ValueError('ran away')\n"
         "    moved = np.nan_to_num("),
    ),
    row(
        "retry recomputed with new noise",
        DOOR,
        "conformance: retry",
        ("if debit.released or debit.used:", "if debit.used:"),
    ),
    row(
        "one payment, two releases",
        DOOR,
        "conformance: proof of payment",
        ("if debit.released or debit.used:", "if debit.released:"),
    ),
)  # fmt: skip
