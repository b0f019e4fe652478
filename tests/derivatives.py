"""Gradients against the derivatives of a plain NumPy program, exact to rounding.

The derivative along v of a function of analytic steps is the imaginary part of f(x + i h v) / h, and without a difference there is
no cancellation: h may be 1e-30 (Squire and Trapp 1998, SIAM Review 40).
"""

import numpy as np

H = 1e-30


def sigmoid(a):
    """Analytic, unlike what goes by cases."""
    return 1 / (1 + np.exp(-a))


def assert_gradients(function, args, douts, gradients, rtol=1e-11):
    """gradients: by names of args, of sum(out * dout) over the outputs of function(**args)."""
    rng = np.random.default_rng(0)
    for name, gradient in gradients.items():
        assert gradient.shape == args[name].shape, name
        for _ in range(3):
            v = rng.standard_normal(args[name].shape)
            outs = function(**args | {name: args[name] + 1j * H * v})
            outs = outs if isinstance(outs, tuple) else (outs,)
            expected = sum(np.vdot(dout, out.imag) for out, dout in zip(outs, douts, strict=True)) / H
            scale = np.linalg.norm(gradient) * np.linalg.norm(v)
            assert abs(np.vdot(gradient, v) - expected) <= rtol * max(scale, 1e-3), name
