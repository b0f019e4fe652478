"""Prints the polynomials of csrc/simd/vmath.h, near-minimax fits in mpmath; about half a minute.

    python vmath_coefficients.py

A fit makes max |w(x) (f(x) - sum_k c_k x^k)| on an interval small: least squares on Chebyshev nodes, with the
nodes weighted again by their error (Lawson's iteration). The coefficients are rounded to the dtype one by
one, the lowest first, and those left are fitted again each time, so that they take up its rounding.
"""

import mpmath as mp
import numpy as np

mp.mp.prec = 160

LN2 = mp.log(2)
# where tanh changes from the polynomial in x to the exponential: the higher, the less the errors of the
# exponential show, and the longer the polynomial
SMALL = {np.float32: mp.mpf("0.65"), np.float64: mp.mpf("0.55")}


def fit(f, w, first, n, nodes, rounds):
    """Coefficients of x^first .. x^(first+n-1)."""
    values = [(w(x), f(x), [x**k for k in range(first, first + n)]) for x in nodes]
    importance = [mp.mpf(1)] * len(nodes)
    for _ in range(rounds):
        a, b = mp.zeros(n), mp.zeros(n, 1)
        for lam, (wx, fx, row) in zip(importance, values, strict=True):
            for i in range(n):
                b[i] += lam * wx**2 * fx * row[i]
                for j in range(n):
                    a[i, j] += lam * wx**2 * row[i] * row[j]
        c = list(mp.lu_solve(a, b))
        errors = [abs(wx * (fx - mp.fdot(c, row))) for wx, fx, row in values]
        importance = [lam * e for lam, e in zip(importance, errors, strict=True)]
        total = mp.fsum(importance)
        importance = [lam / total for lam in importance]
    return c


def show(name, f, w, n, lo, hi, dtype):
    nodes = [lo + (hi - lo) * (1 - mp.cos(mp.pi * (i + mp.mpf(1) / 2) / (8 * n))) / 2 for i in range(8 * n)]
    c = []

    def left(x):
        return f(x) - mp.polyval([*c[::-1], 0], x) / x if c else f(x)

    while len(c) < n:
        best = fit(left, w, len(c), n - len(c), nodes, rounds=12 if dtype == np.float32 else 5)
        c.append(mp.mpf(float(dtype(mp.nstr(best[0], 40)))))
    error = max(abs(w(x) * left(x)) for x in nodes)
    print(f"{dtype.__name__} {name}: error 2^{mp.nstr(mp.log(error, 2), 4)}")
    for ck in c:
        print(f"    {float(ck).hex()}  {mp.nstr(ck, 20)}")


def exp_tail(r):
    return mp.fsum(r**k / mp.factorial(k + 2) for k in range(30))


def exp_ratio(u):
    return mp.expm1(2 * u) / u


def tanh_tail(z):
    a = mp.sqrt(z)
    return (mp.tanh(a) / a - 1) / z


def tanh_weight(z):
    a = mp.sqrt(z)
    return z * a / mp.tanh(a)


def atanh_tail(z):
    s = mp.sqrt(z)
    return (mp.atanh(s) / s - 1) / z


def atanh_weight(z):
    s = mp.sqrt(z)
    return z * s / mp.atanh(s)


def exp_in_tanh(small):
    """What an error of p(u) does to tanh(n ln2/2 + u) = 1 - 2 / (2^n exp(2u) + 1) from `small` on."""

    def weight(u):
        a = LN2 + u if LN2 + u >= small else 3 * LN2 / 2 + u
        return u / mp.exp(2 * u) * (1 - mp.tanh(a) ** 2) / 2

    return weight


def main():
    edge = LN2 / 2 * mp.mpf("1.0001")
    for dtype, n_exp, n_exp2, n_tanh, n_atanh in ((np.float32, 5, 5, 5, 4), (np.float64, 10, 11, 11, 10)):
        small = SMALL[dtype]
        show("exp(r) = 1 + r + r^2 p(r), |r| <= ln2/2",
             exp_tail, lambda r: r**2 / mp.exp(r), n_exp, -edge, edge, dtype)
        show("exp(2u) = 1 + u p(u), |u| <= ln2/4, in tanh",
             exp_ratio, exp_in_tanh(small), n_exp2, -edge / 2, edge / 2, dtype)
        show(f"tanh(a) = a + a z p(z), z = a^2, a <= {mp.nstr(small)}",
             tanh_tail, tanh_weight, n_tanh, mp.mpf("1e-12"), small**2, dtype)
        show("atanh(s) = s + s z p(z), z = s^2, s <= 1/3",
             atanh_tail, atanh_weight, n_atanh, mp.mpf("1e-12"), mp.mpf(1) / 9, dtype)


if __name__ == "__main__":
    main()
