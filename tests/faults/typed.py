"""Hypothesis strategies for command lines: flags of the scripts with values of every kind."""

from hypothesis import strategies as st

from conftest import TEXT

whole = st.one_of(
    st.integers(-3, 70),
    st.sampled_from([2**31 - 1, 2**31, 2**32, 2**63, 10**30, -(10**30)]),
)


real = st.one_of(st.floats(), st.floats(0, 1.5))


text = st.one_of(st.text(max_size=12), st.sampled_from(["", "best", "latest", "--", "-1", "nan"]))


anything = st.one_of(whole, real, text).map(str)


def flags(**kinds):
    """Draws some of these flags with values of their types, in any order."""

    def spell(items):
        return [part for name, value in items for part in (f"--{name}", str(value))]

    pairs = [st.tuples(st.just(name.replace("_", "-")), kind) for name, kind in kinds.items()]
    return st.lists(st.one_of(*pairs), max_size=6, unique_by=lambda pair: pair[0]).map(spell)


SAMPLING = flags(
    prompt=st.one_of(st.text(alphabet=TEXT, max_size=30), text),
    num_samples=st.one_of(st.integers(1, 2), whole.filter(lambda n: not 2 < n < 2**31)),
    max_new_tokens=st.one_of(st.integers(1, 20), whole.filter(lambda n: not 70 < n < 2**31)),
    temperature=real,
    top_k=whole,
    top_p=real,
    seed=st.one_of(st.integers(0, 9), whole),
    step=st.one_of(st.sampled_from(["best", "latest", "3", "6"]), anything),
    prompt_file=anything,
)


# Any flag with any value, but never a text to train on.
VALUED = (
    "--n-layer --n_head --n-embd --block-size --dropout --activation --dtype --batch-size "
    "--max-iters --learning-rate --min-lr --beta1 --keep --seed --preset --max-minutes "
    "--save-interval-minutes --grad-clip --eval-interval --out-dir --mesh --process-id "
    "--heartbeat-seconds"
).split()


SWITCHES = "--resume --overwrite --eval-only --skip-nonfinite --no-bias --tie_embeddings".split()


FOREIGN = "--device --init_from --start --compile --lr -seed --n-layr --no-such".split()


truth = st.sampled_from(["True", "false", "1", "off", "maybe", ""])


def spelt(names, values):
    """A flag and its value, in two arguments or in one."""
    pairs = st.tuples(st.sampled_from(names), values)
    return pairs | pairs.map(lambda pair: ("=".join(pair),))


def typed(*parts):
    """A command line of some of these parts."""
    chosen = st.lists(st.one_of(*parts), max_size=6)
    return chosen.map(lambda parts: [x for part in parts for x in part])


TYPED = typed(
    spelt(VALUED, anything),
    spelt(SWITCHES, truth),
    spelt(FOREIGN, anything),
    st.tuples(st.sampled_from(SWITCHES)),
    st.tuples(anything),
)


# The same for sample.py, and never with a run to sample from.
VALUED_BY_SAMPLE = (
    "--prompt --prompt_file --num-samples --max-new-tokens --stop --temperature --top-k --top_p "
    "--min-p --repetition-penalty --seed --step --window --logprobs --score --stride --dtype "
    "--block-size --batch-size --from-huggingface"
).split()


not_standard_input = anything.filter(lambda value: value != "-")


TYPED_FOR_SAMPLE = typed(
    spelt(VALUED_BY_SAMPLE, not_standard_input),
    spelt(FOREIGN, not_standard_input),
    st.tuples(not_standard_input),
)


TRAINING = flags(
    n_head=st.integers(1, 2),
    batch_size=st.integers(0, 2),
    dropout=st.sampled_from([0, 0.5]),
    learning_rate=real,
    weight_decay=real,
    grad_clip=real,
    beta2=real,
    init_std=real,
    warmup_iters=whole,
    keep=whole.filter(lambda n: n != 0),
    log_interval=whole,
    save_interval_minutes=real,
    max_minutes=real,
    eval_iters=whole,
)


BOOLEANS = st.lists(st.sampled_from(["--skip-nonfinite", "--tie-embeddings", "--no-bias"]))
