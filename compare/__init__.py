"""The same GPT four ways, compared by experiment: `python -m compare`.

    linen_gpt.py   this project's own modules: values in, values out
    nnx_gpt.py     Flax NNX: objects that hold their state, in JAX
    torch_gpt.py   PyTorch: objects that hold their state, an operation at a time
    plain_gpt.py   JAX and a dict, no library: the far end of the scale

Each has the same functions at the same level: make, forward, loss, train_step, generate, save,
load. No two of them import each other.
"""
