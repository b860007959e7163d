import jax
import numpy as np
import pytest
from optax import contrib

from gptjax.muon import COEFFICIENTS, ITERATIONS, orthogonal


@pytest.mark.parametrize("columns", [16, 24, 64])
def test_orthogonal_is_optaxs_newton_schulz_iteration(columns):
    """Narrow matrices, which iterate x, and wide ones, which iterate a polynomial; each alone."""
    x_NRC = jax.random.normal(jax.random.key(0), (3, 16, columns))
    x_NRC = x_NRC.at[1].multiply(1e-4).at[2].set(0)
    optaxs = contrib.scale_by_muon(COEFFICIENTS, ITERATIONS, beta=0.0, preconditioning="schatten")
    for x_RC, y_RC in zip(x_NRC[:2], orthogonal(x_NRC)[:2], strict=True):
        expected, _ = optaxs.update(x_RC, optaxs.init(x_RC))
        np.testing.assert_allclose(y_RC, expected, atol=1e-5)
    assert (orthogonal(x_NRC)[2] == 0).all()


@pytest.mark.parametrize("columns", [64, 256])
def test_orthogonal_survives_a_matrix_of_low_rank(columns):
    """Rounding turns zero eigenvalues into negative ones; iterations must not amplify them."""
    u, v = (jax.random.normal(jax.random.key(i), (1, n, 3)) for i, n in enumerate((64, columns)))
    sizes = np.linalg.svd(orthogonal(u @ v.swapaxes(1, 2))[0], compute_uv=False)
    assert ((sizes[:3] > 0.65) & (sizes[:3] < 1.25)).all()
    assert sizes[3:].max() < 0.01
