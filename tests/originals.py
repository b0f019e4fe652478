"""The equations of two courses' single steps as people write them there, step by step in plain NumPy: what compat is timed against.

Gates are cut out one by one, sigmoid is 1 / (1 + exp(-x)), a product is a call of dot. Names, shapes and orders are the courses'.
"""

import numpy as np


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(x):
    e = np.exp(x - np.max(x))
    return e / e.sum(axis=0)


# --- CS231n: rows, x Wx + h Wh + b, gates i, f, o, g ---------------------------------------------------------------------


def affine_backward(da, x, h, Wx, Wh):
    return da.dot(Wx.T), da.dot(Wh.T), x.T.dot(da), h.T.dot(da), da.sum(axis=0)


def rnn_step_forward(x, prev_h, Wx, Wh, b):
    next_h = np.tanh(x.dot(Wx) + prev_h.dot(Wh) + b)
    return next_h, (x, prev_h, Wx, Wh, next_h)


def rnn_step_backward(dnext_h, cache):
    *inputs, next_h = cache
    return affine_backward(dnext_h * (1 - next_h**2), *inputs)


def lstm_step_forward(x, prev_h, prev_c, Wx, Wh, b):
    H, a = prev_h.shape[1], x.dot(Wx) + prev_h.dot(Wh) + b
    i, f, o, g = sigmoid(a[:, :H]), sigmoid(a[:, H : 2 * H]), sigmoid(a[:, 2 * H : 3 * H]), np.tanh(a[:, 3 * H :])
    next_c = f * prev_c + i * g
    return o * np.tanh(next_c), next_c, (x, prev_h, Wx, Wh, prev_c, i, f, o, g, next_c)


def lstm_step_backward(dnext_h, dnext_c, cache):
    *inputs, prev_c, i, f, o, g, next_c = cache
    tanh_c = np.tanh(next_c)
    dc = dnext_c + dnext_h * o * (1 - tanh_c**2)
    di, df, do, dg = dc * g * i * (1 - i), dc * prev_c * f * (1 - f), dnext_h * tanh_c * o * (1 - o), dc * i * (1 - g**2)
    dx, dprev_h, *weights = affine_backward(np.hstack((di, df, do, dg)), *inputs)
    return dx, dprev_h, dc * f, *weights


# --- the Deep Learning Specialization: columns, W [a, x] + b, a matrix for each gate ------------------------------------------


def rnn_cell_forward(xt, a_prev, p):
    a_next = np.tanh(np.dot(p["Waa"], a_prev) + np.dot(p["Wax"], xt) + p["ba"])
    return a_next, softmax(np.dot(p["Wya"], a_next) + p["by"]), (a_next, a_prev, xt, p)


def rnn_cell_backward(da_next, cache):
    a_next, a_prev, xt, p = cache
    d = (1 - a_next**2) * da_next
    weights = {"dWax": np.dot(d, xt.T), "dWaa": np.dot(d, a_prev.T), "dba": np.sum(d, axis=1, keepdims=True)}
    return {"dxt": np.dot(p["Wax"].T, d), "da_prev": np.dot(p["Waa"].T, d)} | weights


def lstm_cell_forward(xt, a_prev, c_prev, p):
    both = np.concatenate((a_prev, xt), axis=0)
    ft, it = sigmoid(np.dot(p["Wf"], both) + p["bf"]), sigmoid(np.dot(p["Wi"], both) + p["bi"])
    cct = np.tanh(np.dot(p["Wc"], both) + p["bc"])
    c_next = ft * c_prev + it * cct
    ot = sigmoid(np.dot(p["Wo"], both) + p["bo"])
    a_next = ot * np.tanh(c_next)
    return a_next, c_next, softmax(np.dot(p["Wy"], a_next) + p["by"]), (a_next, c_next, a_prev, c_prev, ft, it, cct, ot, xt, p)


def lstm_cell_backward(da_next, dc_next, cache):
    _, c_next, a_prev, c_prev, ft, it, cct, ot, xt, p = cache
    dc = dc_next + da_next * ot * (1 - np.tanh(c_next) ** 2)
    d = {"f": dc * c_prev * ft * (1 - ft), "i": dc * cct * it * (1 - it), "c": dc * it * (1 - cct**2)}
    d["o"] = da_next * np.tanh(c_next) * ot * (1 - ot)
    both, n_a = np.concatenate((a_prev, xt), axis=0), len(a_prev)
    gradients = {"dc_prev": dc * ft}
    gradients["da_prev"] = sum(np.dot(p[f"W{gate}"][:, :n_a].T, d[gate]) for gate in "fico")
    gradients["dxt"] = sum(np.dot(p[f"W{gate}"][:, n_a:].T, d[gate]) for gate in "fico")
    for gate in "fico":
        gradients |= {f"dW{gate}": np.dot(d[gate], both.T), f"db{gate}": np.sum(d[gate], axis=1, keepdims=True)}
    return gradients
