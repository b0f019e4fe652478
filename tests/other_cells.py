"""One step of a recurrent network as each other system computes it, in plain NumPy, written from the system's own equations.

SYSTEMS[format, form](draw, I, H) makes weights as the format has them, by draw(*shape), and returns them with a function that takes
(x, h) or, for an LSTM, (x, h, c), all (B, .), and returns the next h or (h, c).
"""

from functools import partial

import numpy as np

SYSTEMS = {}


def system(name):
    def add(function):
        SYSTEMS[tuple(name.split())] = function
        return function

    return add


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def split(a, n):
    return np.split(a, n, axis=-1)


def lstm(i, f, g, o, c):
    """From the preactivations."""
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


def interpolate(z, n, h):
    return (1 - z) * n + z * h


# --- PyTorch, and those who took over its layout ----------------------------------------------------------------


@system("pytorch rnn")
def _(draw, I, H):
    w = {"weight_ih_l0": draw(H, I), "weight_hh_l0": draw(H, H), "bias_ih_l0": draw(H), "bias_hh_l0": draw(H)}
    return w, lambda x, h: np.tanh(x @ w["weight_ih_l0"].T + w["bias_ih_l0"] + h @ w["weight_hh_l0"].T + w["bias_hh_l0"])


@system("pytorch gru_after")
def _(draw, I, H):
    w = {"weight_ih_l0": draw(3 * H, I), "weight_hh_l0": draw(3 * H, H), "bias_ih_l0": draw(3 * H), "bias_hh_l0": draw(3 * H)}

    def step(x, h):
        xr, xz, xn = split(x @ w["weight_ih_l0"].T + w["bias_ih_l0"], 3)
        hr, hz, hn = split(h @ w["weight_hh_l0"].T + w["bias_hh_l0"], 3)
        return interpolate(sigmoid(xz + hz), np.tanh(xn + sigmoid(xr + hr) * hn), h)

    return w, step


@system("pytorch lstm")
def _(draw, I, H):
    w = {"weight_ih_l0": draw(4 * H, I), "weight_hh_l0": draw(4 * H, H), "bias_ih_l0": draw(4 * H), "bias_hh_l0": draw(4 * H)}

    def step(x, h, c):
        a = x @ w["weight_ih_l0"].T + w["bias_ih_l0"] + h @ w["weight_hh_l0"].T + w["bias_hh_l0"]
        i, f, g, o = split(a, 4)
        return lstm(i, f, g, o, c)

    return w, step


@system("jax lstm")
def _(draw, I, H):
    flat = draw(4 * H * (I + H + 2))
    w_ih, w_hh, b_ih, b_hh = np.split(flat, np.cumsum([4 * H * I, 4 * H * H, 4 * H]))

    def step(x, h, c):
        i, f, g, o = split(x @ w_ih.reshape(4 * H, I).T + b_ih + h @ w_hh.reshape(4 * H, H).T + b_hh, 4)
        return lstm(i, f, g, o, c)

    return flat, step


@system("thinc lstm")
def _(draw, I, H):
    flat = draw(4 * H * (I + H + 2))
    Wx, bx, Wh, bh = np.split(flat, np.cumsum([4 * H * I, 4 * H, 4 * H * H]))

    def step(x, h, c):
        f, i, o, g = split(x @ Wx.reshape(4 * H, I).T + bx + h @ Wh.reshape(4 * H, H).T + bh, 4)
        return lstm(i, f, g, o, c)

    return flat, step


@system("mlx rnn")
def _(draw, I, H):
    w = {"Wxh": draw(H, I), "Whh": draw(H, H), "bias": draw(H)}
    return w, lambda x, h: np.tanh(w["bias"] + x @ w["Wxh"].T + h @ w["Whh"].T)


@system("mlx gru_after")
def _(draw, I, H):
    w = {"Wx": draw(3 * H, I), "Wh": draw(3 * H, H), "b": draw(3 * H), "bhn": draw(H)}

    def step(x, h):
        xr, xz, xn = split(w["b"] + x @ w["Wx"].T, 3)
        hr, hz, hn = split(h @ w["Wh"].T, 3)
        return interpolate(sigmoid(xz + hz), np.tanh(xn + sigmoid(xr + hr) * (hn + w["bhn"])), h)

    return w, step


@system("mlx lstm")
def _(draw, I, H):
    w = {"Wx": draw(4 * H, I), "Wh": draw(4 * H, H), "bias": draw(4 * H)}

    def step(x, h, c):
        i, f, g, o = split(w["bias"] + x @ w["Wx"].T + h @ w["Wh"].T, 4)
        return lstm(i, f, g, o, c)

    return w, step


# --- Keras and Haste ----------------------------------------------------------------------------------------------


@system("keras rnn")
def _(draw, I, H):
    kernel, recurrent, bias = w = [draw(I, H), draw(H, H), draw(H)]
    return w, lambda x, h: np.tanh(x @ kernel + bias + h @ recurrent)


@system("keras gru_after")
def _(draw, I, H):
    kernel, recurrent, bias = w = [draw(I, 3 * H), draw(H, 3 * H), draw(2, 3 * H)]

    def step(x, h):
        xz, xr, xh = split(x @ kernel + bias[0], 3)
        hz, hr, hh = split(h @ recurrent + bias[1], 3)
        return interpolate(sigmoid(xz + hz), np.tanh(xh + sigmoid(xr + hr) * hh), h)

    return w, step


@system("keras gru_before")
def _(draw, I, H):
    kernel, recurrent, bias = w = [draw(I, 3 * H), draw(H, 3 * H), draw(3 * H)]

    def step(x, h):
        xz, xr, xh = split(x @ kernel + bias, 3)
        hz, hr = split(h @ recurrent[:, : 2 * H], 2)
        return interpolate(sigmoid(xz + hz), np.tanh(xh + (sigmoid(xr + hr) * h) @ recurrent[:, 2 * H :]), h)

    return w, step


@system("keras lstm")
def _(draw, I, H):
    kernel, recurrent, bias = w = [draw(I, 4 * H), draw(H, 4 * H), draw(4 * H)]

    def step(x, h, c):
        i, f, g, o = split(x @ kernel + h @ recurrent + bias, 4)
        return lstm(i, f, g, o, c)

    return w, step


@system("haste gru_after")
def _(draw, I, H):
    w = {"kernel": draw(I, 3 * H), "recurrent_kernel": draw(H, 3 * H), "bias": draw(3 * H), "recurrent_bias": draw(3 * H)}

    def step(x, h):
        xz, xr, xg = split(x @ w["kernel"] + w["bias"], 3)
        hz, hr, hg = split(h @ w["recurrent_kernel"] + w["recurrent_bias"], 3)
        z = sigmoid(xz + hz)
        return z * h + (1 - z) * np.tanh(xg + sigmoid(xr + hr) * hg)

    return w, step


@system("haste lstm")
def _(draw, I, H):
    w = {"kernel": draw(I, 4 * H), "recurrent_kernel": draw(H, 4 * H), "bias": draw(4 * H)}

    def step(x, h, c):
        i, g, f, o = split(x @ w["kernel"] + h @ w["recurrent_kernel"] + w["bias"], 4)
        return lstm(i, f, g, o, c)

    return w, step


# --- ONNX and oneDNN ----------------------------------------------------------------------------------------------


def onnx_weights(draw, G, I, H):
    return {"W": draw(1, G * H, I), "R": draw(1, G * H, H), "B": draw(1, 2 * G * H)}


@system("onnx rnn")
def _(draw, I, H):
    w = onnx_weights(draw, 1, I, H)
    Wb, Rb = split(w["B"][0], 2)
    return w, lambda x, h: np.tanh(x @ w["W"][0].T + h @ w["R"][0].T + Wb + Rb)


def onnx_gru(draw, I, H, after):
    w = onnx_weights(draw, 3, I, H)
    (Wz, Wr, Wh), (Rz, Rr, Rh) = (np.split(w[name][0], 3) for name in "WR")
    Wbz, Wbr, Wbh, Rbz, Rbr, Rbh = np.split(w["B"][0], 6)

    def step(x, h):
        z = sigmoid(x @ Wz.T + h @ Rz.T + Wbz + Rbz)
        r = sigmoid(x @ Wr.T + h @ Rr.T + Wbr + Rbr)
        n = x @ Wh.T + Wbh + (r * (h @ Rh.T + Rbh) if after else (r * h) @ Rh.T + Rbh)
        return interpolate(z, np.tanh(n), h)

    return w, step


SYSTEMS["onnx", "gru_after"] = partial(onnx_gru, after=True)  # linear_before_reset = 1
SYSTEMS["onnx", "gru_before"] = partial(onnx_gru, after=False)


@system("onnx lstm")
def _(draw, I, H):
    w = onnx_weights(draw, 4, I, H) | {"P": draw(1, 3 * H)}
    Pi, Po, Pf = np.split(w["P"][0], 3)

    def step(x, h, c):
        i, o, f, g = split(x @ w["W"][0].T + h @ w["R"][0].T + w["B"][0, : 4 * H] + w["B"][0, 4 * H :], 4)
        c_next = sigmoid(f + Pf * c) * c + sigmoid(i + Pi * c) * np.tanh(g)
        return sigmoid(o + Po * c_next) * np.tanh(c_next), c_next

    return w, step


def onednn_weights(draw, G, biases, I, H):
    return {"weights_layer": draw(1, 1, I, G, H), "weights_iter": draw(1, 1, H, G, H), "bias": draw(1, 1, biases, H)}


def by_gate(x, w):
    """(G, B, H) of (B, n) and (n, G, H)."""
    return np.einsum("bn,ngh->gbh", x, w)


@system("onednn rnn")
def _(draw, I, H):
    w = onednn_weights(draw, 1, 1, I, H)
    return w, lambda x, h: np.tanh(x @ w["weights_layer"][0, 0, :, 0] + h @ w["weights_iter"][0, 0, :, 0] + w["bias"][0, 0, 0])


@system("onednn gru_before")
def _(draw, I, H):
    w = onednn_weights(draw, 3, 3, I, H)
    W, U, B = (w[name][0, 0] for name in w)

    def step(x, h):
        u = sigmoid(x @ W[:, 0] + h @ U[:, 0] + B[0])
        r = sigmoid(x @ W[:, 1] + h @ U[:, 1] + B[1])
        return u * h + (1 - u) * np.tanh(x @ W[:, 2] + (r * h) @ U[:, 2] + B[2])

    return w, step


@system("onednn gru_after")
def _(draw, I, H):
    w = onednn_weights(draw, 3, 4, I, H)
    W, U, B = (w[name][0, 0] for name in w)

    def step(x, h):
        u = sigmoid(x @ W[:, 0] + h @ U[:, 0] + B[0])
        r = sigmoid(x @ W[:, 1] + h @ U[:, 1] + B[1])
        return u * h + (1 - u) * np.tanh(x @ W[:, 2] + r * (h @ U[:, 2] + B[3]) + B[2])

    return w, step


@system("onednn lstm")
def _(draw, I, H):
    w = onednn_weights(draw, 4, 4, I, H) | {"weights_peephole": draw(1, 1, 3, H)}
    W, U, B, P = (w[name][0, 0] for name in w)

    def step(x, h, c):
        i, f, g, o = by_gate(x, W) + by_gate(h, U) + B[:, None]
        c_next = sigmoid(f + P[1] * c) * c + sigmoid(i + P[0] * c) * np.tanh(g)
        return sigmoid(o + P[2] * c_next) * np.tanh(c_next), c_next

    return w, step


# --- Flax and Chainer ---------------------------------------------------------------------------------------------


@system("flax-linen rnn")
def _(draw, I, H):
    w = {"i": {"kernel": draw(I, H), "bias": draw(H)}, "h": {"kernel": draw(H, H)}}
    return w, lambda x, h: np.tanh(x @ w["i"]["kernel"] + w["i"]["bias"] + h @ w["h"]["kernel"])


@system("flax-linen gru_after")
def _(draw, I, H):
    w = {f"i{g}": {"kernel": draw(I, H), "bias": draw(H)} for g in "rzn"} | {f"h{g}": {"kernel": draw(H, H)} for g in "rzn"}
    w["hn"]["bias"] = draw(H)

    def dense(name, v):
        return v @ w[name]["kernel"] + w[name].get("bias", 0)

    def step(x, h):
        r, z = (sigmoid(dense(f"i{g}", x) + dense(f"h{g}", h)) for g in "rz")
        return interpolate(z, np.tanh(dense("in", x) + r * dense("hn", h)), h)

    return w, step


@system("flax-linen lstm")
def _(draw, I, H):
    w = {f"i{g}": {"kernel": draw(I, H)} for g in "ifgo"} | {f"h{g}": {"kernel": draw(H, H), "bias": draw(H)} for g in "ifgo"}

    def step(x, h, c):
        return lstm(*(x @ w[f"i{g}"]["kernel"] + h @ w[f"h{g}"]["kernel"] + w[f"h{g}"]["bias"] for g in "ifgo"), c)

    return w, step


@system("flax-nnx rnn")
def _(draw, I, H):
    w = {"dense_i": {"kernel": draw(I, H), "bias": draw(H)}, "dense_h": {"kernel": draw(H, H)}}
    return w, lambda x, h: np.tanh(x @ w["dense_i"]["kernel"] + w["dense_i"]["bias"] + h @ w["dense_h"]["kernel"])


@system("flax-nnx gru_after")
def _(draw, I, H):
    w = {"dense_i": {"kernel": draw(I, 3 * H), "bias": draw(3 * H)}, "dense_h": {"kernel": draw(H, 3 * H)}}

    def step(x, h):
        xr, xz, xn = split(x @ w["dense_i"]["kernel"] + w["dense_i"]["bias"], 3)
        hr, hz, hn = split(h @ w["dense_h"]["kernel"], 3)
        return interpolate(sigmoid(xz + hz), np.tanh(xn + sigmoid(xr + hr) * hn), h)

    return w, step


@system("flax-nnx lstm")
def _(draw, I, H):
    w = {"dense_i": {"kernel": draw(I, 4 * H)}, "dense_h": {"kernel": draw(H, 4 * H), "bias": draw(4 * H)}}

    def step(x, h, c):
        i, f, g, o = split(x @ w["dense_i"]["kernel"] + h @ w["dense_h"]["kernel"] + w["dense_h"]["bias"], 4)
        return lstm(i, f, g, o, c)

    return w, step


def chainer_weights(draw, G, I, H):
    w = {f"0/w{k}": draw(H, I if k < G else H) for k in range(2 * G)}
    return w | {f"0/b{k}": draw(H) for k in range(2 * G)}


@system("chainer rnn")
def _(draw, I, H):
    w = chainer_weights(draw, 1, I, H)
    return w, lambda x, h: np.tanh(x @ w["0/w0"].T + w["0/b0"] + h @ w["0/w1"].T + w["0/b1"])


@system("chainer gru_after")
def _(draw, I, H):
    w = chainer_weights(draw, 3, I, H)

    def dense(k, v):
        return v @ w[f"0/w{k}"].T + w[f"0/b{k}"]

    def step(x, h):
        r, z = sigmoid(dense(0, x) + dense(3, h)), sigmoid(dense(1, x) + dense(4, h))
        return interpolate(z, np.tanh(dense(2, x) + r * dense(5, h)), h)

    return w, step


@system("chainer lstm")
def _(draw, I, H):
    w = chainer_weights(draw, 4, I, H)

    def step(x, h, c):
        i, f, a, o = (x @ w[f"0/w{k}"].T + w[f"0/b{k}"] + h @ w[f"0/w{k + 4}"].T + w[f"0/b{k + 4}"] for k in range(4))
        return lstm(i, f, a, o, c)

    return w, step


@system("chainer-lstm lstm")
def _(draw, I, H):
    w = {"upward": {"W": draw(4 * H, I), "b": draw(4 * H)}, "lateral": {"W": draw(4 * H, H)}}

    def step(x, h, c):
        a = x @ w["upward"]["W"].T + w["upward"]["b"] + h @ w["lateral"]["W"].T
        a, i, f, o = (a[:, k::4] for k in range(4))
        return lstm(i, f, a, o, c)

    return w, step


# --- DyNet, Lasagne, madmom ---------------------------------------------------------------------------------------


@system("dynet rnn")
def _(draw, I, H):
    w = [draw(H, I), draw(H, H), draw(H)]
    return w, lambda x, h: np.tanh(w[2] + x @ w[0].T + h @ w[1].T)


@system("dynet gru_before")
def _(draw, I, H):
    w = [draw(*shape) for _ in range(3) for shape in ((H, I), (H, H), (H,))]
    x2z, h2z, bz, x2r, h2r, br, x2h, h2h, bh = w

    def step(x, h):
        z = sigmoid(bz + x @ x2z.T + h @ h2z.T)
        r = sigmoid(br + x @ x2r.T + h @ h2r.T)
        return (1 - z) * h + z * np.tanh(bh + x @ x2h.T + (r * h) @ h2h.T)

    return w, step


@system("dynet lstm")
def _(draw, I, H):
    x2i, h2i, bi = w = [draw(4 * H, I), draw(4 * H, H), draw(4 * H)]

    def step(x, h, c):
        i, f, o, g = split(x @ x2i.T + h @ h2i.T + bi, 4)
        return lstm(i, f + 1, g, o, c)

    return w, step


@system("lasagne rnn")
def _(draw, I, H):
    w = {"input_to_hidden.W": draw(I, H), "input_to_hidden.b": draw(H), "hidden_to_hidden.W": draw(H, H)}
    return w, lambda x, h: np.tanh(x @ w["input_to_hidden.W"] + w["input_to_hidden.b"] + h @ w["hidden_to_hidden.W"])


@system("lasagne gru_after")
def _(draw, I, H):
    w = {}
    for gate in ("updategate", "resetgate", "hidden_update"):
        w |= {f"W_in_to_{gate}": draw(I, H), f"W_hid_to_{gate}": draw(H, H), f"b_{gate}": draw(H)}

    def step(x, h):
        xr, xu, xh = (x @ w[f"W_in_to_{g}"] + w[f"b_{g}"] for g in ("resetgate", "updategate", "hidden_update"))
        hr, hu, hh = (h @ w[f"W_hid_to_{g}"] for g in ("resetgate", "updategate", "hidden_update"))
        update = sigmoid(xu + hu)
        return (1 - update) * h + update * np.tanh(xh + sigmoid(xr + hr) * hh)

    return w, step


@system("lasagne lstm")
def _(draw, I, H):
    gates = ("ingate", "forgetgate", "cell", "outgate")
    w = {}
    for gate in gates:
        w |= {f"W_in_to_{gate}": draw(I, H), f"W_hid_to_{gate}": draw(H, H), f"b_{gate}": draw(H)}
    w |= {f"W_cell_to_{gate}": draw(H) for gate in gates if gate != "cell"}

    def step(x, h, c):
        i, f, g, o = (x @ w[f"W_in_to_{gate}"] + h @ w[f"W_hid_to_{gate}"] + w[f"b_{gate}"] for gate in gates)
        c_next = sigmoid(f + c * w["W_cell_to_forgetgate"]) * c + sigmoid(i + c * w["W_cell_to_ingate"]) * np.tanh(g)
        return sigmoid(o + c_next * w["W_cell_to_outgate"]) * np.tanh(c_next), c_next

    return w, step


def madmom_gate(draw, I, H):
    return {"weights": draw(I, H), "bias": draw(H), "recurrent_weights": draw(H, H)}


def madmom_dense(gate, x, h):
    return x @ gate["weights"] + gate["bias"] + h @ gate["recurrent_weights"]


@system("madmom rnn")
def _(draw, I, H):
    w = madmom_gate(draw, I, H)
    return w, lambda x, h: np.tanh(madmom_dense(w, x, h))


@system("madmom gru_after")
def _(draw, I, H):
    w = {name: madmom_gate(draw, I, H) for name in ("reset_gate", "update_gate", "cell")}

    def step(x, h):
        reset, update = (sigmoid(madmom_dense(w[name], x, h)) for name in ("reset_gate", "update_gate"))
        cell = w["cell"]
        cell = np.tanh(x @ cell["weights"] + cell["bias"] + reset * (h @ cell["recurrent_weights"]))
        return update * cell + (1 - update) * h

    return w, step


@system("madmom lstm")
def _(draw, I, H):
    w = {name: madmom_gate(draw, I, H) for name in ("input_gate", "forget_gate", "cell", "output_gate")}
    for name in ("input_gate", "forget_gate", "output_gate"):
        w[name]["peephole_weights"] = draw(H)

    def step(x, h, c):
        i, f, o = ((madmom_dense(w[name], x, h), w[name]["peephole_weights"]) for name in w if name != "cell")
        c_next = np.tanh(madmom_dense(w["cell"], x, h)) * sigmoid(i[0] + c * i[1]) + c * sigmoid(f[0] + c * f[1])
        return np.tanh(c_next) * sigmoid(o[0] + c_next * o[1]), c_next

    return w, step


# --- courses and examples -----------------------------------------------------------------------------------------


@system("cs231n rnn")
def _(draw, I, H):
    w = {"Wx": draw(I, H), "Wh": draw(H, H), "b": draw(H)}
    return w, lambda x, h: np.tanh(x @ w["Wx"] + h @ w["Wh"] + w["b"])


@system("cs231n lstm")
def _(draw, I, H):
    w = {"Wx": draw(I, 4 * H), "Wh": draw(H, 4 * H), "b": draw(4 * H)}

    def step(x, h, c):
        i, f, o, g = split(x @ w["Wx"] + h @ w["Wh"] + w["b"], 4)
        return lstm(i, f, g, o, c)

    return w, step


@system("karpathy rnn")
def _(draw, I, H):
    w = {"Wxh": draw(H, I), "Whh": draw(H, H), "bh": draw(H, 1)}
    return w, lambda x, h: np.tanh(w["Wxh"] @ x.T + w["Whh"] @ h.T + w["bh"]).T


@system("karpathy lstm")
def _(draw, I, H):
    WLSTM = draw(1 + I + H, 4 * H)

    def step(x, h, c):
        i, f, o, g = split(np.hstack([np.ones((len(x), 1)), x, h]) @ WLSTM, 4)
        return lstm(i, f, g, o, c)

    return WLSTM, step


@system("coursera rnn")
def _(draw, I, H):
    w = {"Wax": draw(H, I), "Waa": draw(H, H), "ba": draw(H, 1)}
    return w, lambda x, h: np.tanh(w["Wax"] @ x.T + w["Waa"] @ h.T + w["ba"]).T


@system("coursera lstm")
def _(draw, I, H):
    w = {f"W{gate}": draw(H, H + I) for gate in "fico"} | {f"b{gate}": draw(H, 1) for gate in "fico"}

    def step(x, h, c):
        f, i, g, o = ((w[f"W{gate}"] @ np.concatenate([h.T, x.T]) + w[f"b{gate}"]).T for gate in "fico")
        return lstm(i, f, g, o, c)

    return w, step


@system("numpy-ml rnn")
def _(draw, I, H):
    w = {"Wax": draw(I, H), "Waa": draw(H, H), "ba": draw(H, 1), "bx": draw(H, 1)}
    return w, lambda x, h: np.tanh(h @ w["Waa"] + w["ba"].T + x @ w["Wax"] + w["bx"].T)


@system("numpy-ml lstm")
def _(draw, I, H):
    w = {f"W{gate}": draw(H + I, H) for gate in "fuco"} | {f"b{gate}": draw(1, H) for gate in "fuco"}

    def step(x, h, c):
        f, u, g, o = (np.hstack([h, x]) @ w[f"W{gate}"] + w[f"b{gate}"] for gate in "fuco")
        return lstm(u, f, g, o, c)

    return w, step


def with_one(x, h):
    return np.hstack([x, h, np.ones((len(x), 1))])


@system("autograd rnn")
def _(draw, I, H):
    w = {"change": draw(I + H + 1, H)}
    return w, lambda x, h: np.tanh(with_one(x, h) @ w["change"])


@system("autograd lstm")
def _(draw, I, H):
    w = {name: draw(I + H + 1, H) for name in ("change", "forget", "ingate", "outgate")}

    def step(x, h, c):
        gate = {name: 0.5 * (np.tanh(with_one(x, h) @ w[name]) + 1) for name in w}
        c = c * gate["forget"] + gate["ingate"] * np.tanh(with_one(x, h) @ w["change"])
        return gate["outgate"] * np.tanh(c), c

    return w, step


# --- Dive into Deep Learning ------------------------------------------------------------------------------------------


def d2l_weights(draw, gates, I, H):
    """The weights, and the preactivation of a gate."""
    w = {name: draw(*shape) for g in gates for name, shape in ((f"W_x{g}", (I, H)), (f"W_h{g}", (H, H)), (f"b_{g}", (H,)))}
    return w, lambda g, x, h: x @ w[f"W_x{g}"] + h @ w[f"W_h{g}"] + w[f"b_{g}"]


@system("d2l rnn")
def _(draw, I, H):
    w, gate = d2l_weights(draw, "h", I, H)
    return w, lambda x, h: np.tanh(gate("h", x, h))


@system("d2l gru_before")
def _(draw, I, H):
    w, gate = d2l_weights(draw, "zrh", I, H)

    def step(x, h):
        z, r = sigmoid(gate("z", x, h)), sigmoid(gate("r", x, h))
        return z * h + (1 - z) * np.tanh(gate("h", x, r * h))

    return w, step


@system("d2l lstm")
def _(draw, I, H):
    w, gate = d2l_weights(draw, "ifoc", I, H)
    return w, lambda x, h, c: lstm(gate("i", x, h), gate("f", x, h), gate("c", x, h), gate("o", x, h), c)


# --- TensorFlow 1, CuDNN's layers of Keras 2, TensorFlow Lite, PaddlePaddle, and textbooks ------------------------


@system("tf1 rnn")
def _(draw, I, H):
    w = {"kernel": draw(I + H, H), "bias": draw(H)}
    return w, lambda x, h: np.tanh(np.concatenate([x, h], 1) @ w["kernel"] + w["bias"])


@system("tf1 gru_before")
def _(draw, I, H):
    w = {part: {"kernel": draw(I + H, n), "bias": draw(n)} for part, n in (("gates", 2 * H), ("candidate", H))}

    def step(x, h):
        r, u = split(sigmoid(np.concatenate([x, h], 1) @ w["gates"]["kernel"] + w["gates"]["bias"]), 2)
        c = np.tanh(np.concatenate([x, r * h], 1) @ w["candidate"]["kernel"] + w["candidate"]["bias"])
        return u * h + (1 - u) * c

    return w, step


@system("tf1 lstm")
def _(draw, I, H):
    """rnn_cell_impl.LSTMCell(use_peepholes=True), forget_bias=1."""
    w = {"kernel": draw(I + H, 4 * H), "bias": draw(4 * H)} | {f"w_{gate}_diag": draw(H) for gate in "fio"}

    def step(x, h, c):
        i, j, f, o = split(np.concatenate([x, h], 1) @ w["kernel"] + w["bias"], 4)
        c_next = sigmoid(f + 1.0 + w["w_f_diag"] * c) * c + sigmoid(i + w["w_i_diag"] * c) * np.tanh(j)
        return sigmoid(o + w["w_o_diag"] * c_next) * np.tanh(c_next), c_next

    return w, step


def cudnn(draw, G, I, H):
    """The blocks that cuDNN multiplies x and h with, (H, I) and (H, H), and how CuDNNLSTM and CuDNNGRU store them: the numbers of a
    block as if they were (I, H) or (H, H), the blocks side by side (keras 2.3, _convert_rnn_weights: k.T.reshape(order="F"))."""
    blocks = [[draw(H, n) for _ in range(G)] for n in (I, H)]
    kernels = [np.concatenate([block.reshape(n, H) for block in side], 1) for side, n in zip(blocks, (I, H))]
    weights = [*kernels, draw(2 * G * H)]

    def products(x, h):
        xs, hs = (np.stack([a @ block.T for block in side]) for a, side in zip((x, h), blocks))
        bx, bh = weights[2].reshape(2, G, 1, H)
        return xs + bx, hs + bh

    return weights, products


@system("cudnn-keras lstm")
def _(draw, I, H):
    w, products = cudnn(draw, 4, I, H)
    return w, lambda x, h, c: lstm(*np.add(*products(x, h)), c)


@system("cudnn-keras gru_after")
def _(draw, I, H):
    w, products = cudnn(draw, 3, I, H)

    def step(x, h):
        (xz, xr, xn), (hz, hr, hn) = products(x, h)
        return interpolate(sigmoid(xz + hz), np.tanh(xn + sigmoid(xr + hr) * hn), h)

    return w, step


@system("tflite lstm")
def _(draw, I, H):
    gates = {"input": "i", "forget": "f", "cell": "g", "output": "o"}
    w = {f"input_to_{gate}_weights": draw(H, I) for gate in gates}
    w |= {f"recurrent_to_{gate}_weights": draw(H, H) for gate in gates} | {f"{gate}_gate_bias": draw(H) for gate in gates}
    w |= {f"cell_to_{gate}_weights": draw(H) for gate in gates if gate != "cell"}

    def step(x, h, c):
        def gate(name, c):
            a = x @ w[f"input_to_{name}_weights"].T + h @ w[f"recurrent_to_{name}_weights"].T + w[f"{name}_gate_bias"]
            return a if c is None else sigmoid(a + w[f"cell_to_{name}_weights"] * c)

        c_next = gate("forget", c) * c + gate("input", c) * np.tanh(gate("cell", None))
        return gate("output", c_next) * np.tanh(c_next), c_next

    return w, step


@system("paddle gru_before")
def _(draw, I, H):
    w = {"fc.w_0": draw(I, 3 * H), "fc.b_0": draw(3 * H), "gru.w_0": draw(H, 3 * H), "gru.b_0": draw(1, 3 * H)}
    W_ur, W_c = w["gru.w_0"].ravel()[: 2 * H * H].reshape(H, 2 * H), w["gru.w_0"].ravel()[2 * H * H :].reshape(H, H)

    def step(x, h):
        xu, xr, xc = split(x @ w["fc.w_0"] + w["fc.b_0"] + w["gru.b_0"], 3)
        hu, hr = split(h @ W_ur, 2)
        u = sigmoid(xu + hu)
        return (1 - u) * h + u * np.tanh(xc + (sigmoid(xr + hr) * h) @ W_c)

    return w, step


@system("textbook lstm")
def _(draw, I, H):
    w = {f"W{gate}": draw(H, H + I) for gate in "fico"} | {f"b{gate}": draw(H) for gate in "fico"}

    def step(x, h, c):
        f, i, g, o = (np.concatenate([h, x], 1) @ w[f"W{gate}"].T + w[f"b{gate}"] for gate in "fico")
        return lstm(i, f, g, o, c)

    return w, step
