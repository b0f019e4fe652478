# Plain calls on PyTorch's tensors, which DLPack's table of C functions shows us: pointer, shape, strides, dtype and device of a tensor
# in some nanoseconds, and without PyTorch's headers. As with arrays, whatever is not plain gets None here, and goes the general way.

from cpython.exc cimport PyErr_Clear
from cpython.pycapsule cimport PyCapsule_GetPointer
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef extern from *:
    """
    #include <stdint.h>
    /* DLTensor and DLPackExchangeAPI of DLPack 1.x; of the functions we call one. */
    typedef struct {
        void *data;
        int32_t device_type, device_id, ndim;
        uint8_t code, bits;
        uint16_t lanes;
        const int64_t *shape, *strides;
        uint64_t byte_offset;
    } fr_tensor;
    typedef struct {
        uint32_t major, minor;
        void *older, *allocate, *from_object, *to_object;
        int (*look)(void *object, fr_tensor *tensor);
        void *stream;
    } fr_exchange;
    """
    ctypedef struct fr_tensor:
        void *data
        int32_t device_type, ndim
        uint8_t code, bits
        uint16_t lanes
        const int64_t *shape
        const int64_t *strides
        uint64_t byte_offset
    ctypedef struct fr_exchange:
        uint32_t major
        int (*look)(void *object, fr_tensor *tensor) except? -1

cdef enum:
    DL_CPU = 1
    DL_FLOAT = 2

cdef const fr_exchange *exchange = NULL
cdef object tensor_kind = None, parameter_kind = None, torch_threads = None


def use_tensors(kind, parameter, threads_of):
    """Read tensors of these two classes, and use no more threads than a function says. Can their package show them in C?"""
    global exchange, tensor_kind, parameter_kind, torch_threads
    cdef object capsule = getattr(kind, "__dlpack_c_exchange_api__", None)
    if capsule is None:
        return False
    cdef const fr_exchange *table = <const fr_exchange *>PyCapsule_GetPointer(capsule, "dlpack_exchange_api")
    if table.major != 1 or table.look == NULL:
        return False
    exchange, tensor_kind, parameter_kind, torch_threads = table, kind, parameter, threads_of
    return True


cdef fr_lender lender


def borrow_threads(uintptr_t parallel, uintptr_t number, uintptr_t count):
    """Form the teams of tensors' calls of the threads behind these functions, an fr_lender's."""
    lender.number, lender.count = <int (*)() noexcept nogil>number, <int (*)() noexcept nogil>count
    lender.parallel = <void (*)(void (*)(void *) noexcept nogil, void *, unsigned, unsigned) noexcept nogil>parallel


cdef void give_back_threads() noexcept:
    """A forked child has none of these either, and their library may wait for them."""
    lender.parallel = NULL
    fr_pool_after_fork(&borrowed_pool)


# --- arguments ----------------------------------------------------------------------------------------------------------

cdef bint look(object tensor, int bits, fr_tensor *t) except -1:
    """Is this a tensor, on the CPU, of floats of so many bits that stand in memory as they are? Then `t` is its form."""
    kind = type(tensor)
    if kind is not tensor_kind and kind is not parameter_kind:
        return False
    try:
        exchange.look(<void *>tensor, t)
    except RuntimeError:  # it has no memory: sparse, on the meta device, or left over from a transformation
        return False
    if t.device_type != DL_CPU or t.code != DL_FLOAT or t.bits != bits or t.lanes != 1 or t.data == NULL or t.byte_offset:
        return False
    return <uintptr_t>t.data % (bits // 8) == 0 and not tensor.is_neg()


cdef bint look_at(object tensor, int bits, int ndim, const ptrdiff_t *shape, const char **to) except -1:
    """Is this of the shape, and in C order? Then its numbers are at `to`."""
    cdef fr_tensor t
    cdef ptrdiff_t stride = 1
    cdef int i
    if not look(tensor, bits, &t) or t.ndim != ndim:
        return False
    for i in range(ndim - 1, -1, -1):
        if t.shape[i] != shape[i] or (shape[i] != 1 and t.strides[i] != stride):
            return False
        stride *= shape[i]
    to[0] = <const char *>t.data
    return True


cdef bint look_at_rows(object tensor, int bits, ptrdiff_t n, bint one_step, bint batch_first, Form *f) except -1:
    """plain_rows of a tensor."""
    cdef fr_tensor t
    if not look(tensor, bits, &t):
        return False
    cdef int ndim = t.ndim + one_step
    if ndim != 2 and ndim != 3:
        return False
    cdef const int64_t *shape = t.shape - one_step
    cdef const int64_t *strides = t.strides - one_step
    if shape[ndim - 1] != n or n == 0 or (n > 1 and strides[ndim - 1] != 1):
        return False
    f.unbatched = ndim == 2
    f.rows_first = batch_first and ndim == 3
    cdef int rows = 0 if f.rows_first else 1, time = 1 - rows
    f.B = 1 if f.unbatched else shape[rows]
    f.T = 1 if one_step else shape[time]
    f.x.p = t.data
    f.x.sb = 0 if f.unbatched else strides[rows]
    f.x.st = 0 if one_step else strides[0 if f.unbatched else time]
    return f.T > 0 and f.B > 0


cdef object new_tensor(object like, int ndim, ptrdiff_t a, ptrdiff_t b, ptrdiff_t c, char **to):
    """(a, b, c), or the last of these: uninitialised, of the same dtype."""
    cdef fr_tensor t
    cdef tuple shape
    if ndim == 3:
        shape = (a, b, c)
    elif ndim == 2:
        shape = (b, c)
    else:
        shape = (c,)
    tensor = like.new_empty(shape)
    exchange.look(<void *>tensor, &t)
    to[0] = <char *>t.data
    return tensor


# --- the calls of a layer or a cell ---------------------------------------------------------------------------------------

cdef class TensorCalls(PlainCalls):
    """Plain calls whose weights come with each call, in PyTorch's order; it is made of weights of the right shapes. In inference None
    is for those of which it was made, a snapshot. Nothing is kept from one call to the next: any number of threads may share it."""

    cdef bint borrows(self) noexcept:
        return lender.parallel != NULL

    cdef int most_threads(self) except -1:
        return min(PlainCalls.most_threads(self), <int>torch_threads())

    cdef void run_team(self, int team, int kind, long long patience_ns, fr_work *kernel, const fr_call *t) noexcept nogil:
        if lender.parallel == NULL:
            fr_pool_run(&pool, team, kind, patience_ns, kernel, t)
        else:
            fr_pool_run_borrowed(&borrowed_pool, &lender, team, kind, patience_ns, kernel, t)

    cdef inline int bits(self) noexcept:
        return <int>(8 * self.size)

    cdef bint look_at_input(self, object x, bint one_step, bint batch_first, Form *f) except -1:
        if not gemm_is_own(self.table) or not look_at_rows(x, self.bits(), self.calls[0].I, one_step, batch_first, f):
            return False
        return <double>f.T * f.B * (self.calls[0].I + 6 * self.H) <= 1e15

    cdef bint look_at_state(self, object state, ptrdiff_t n, const Form *f, const char **to) except -1:
        """plain_state of a tensor."""
        cdef ptrdiff_t shape[3]
        cdef int ndim = 0
        if self.stacked:
            shape[ndim] = self.stacked
            ndim += 1
        if not f.unbatched:
            shape[ndim] = f.B
            ndim += 1
        shape[ndim] = n
        return look_at(state, self.bits(), ndim + 1, shape, to)

    cdef bint look_at_states(self, object hx, Form *f) except -1:
        """A state, or None; of an LSTM a pair."""
        f.h0 = f.c0 = NULL
        if hx is None:
            return True
        if not self.has_c:
            return self.look_at_state(hx, self.P, f, &f.h0)
        if type(hx) is not tuple or len(<tuple>hx) != 2:
            return False
        h, c = <tuple>hx
        return self.look_at_state(h, self.P, f, &f.h0) and self.look_at_state(c, self.H, f, &f.c0)

    cdef bint look_at_weights(self, list weights, ptrdiff_t k, fr_weights *to) except -1:
        """Those of layer k."""
        if weights is None:
            to[0] = self.calls[k].w
            return True
        cdef fr_call *t = &self.calls[k]
        cdef fr_weights *known = &t.w
        cdef ptrdiff_t rows = self.gates * t.H, n = len(weights) // self.layers, at = k * n
        cdef ptrdiff_t shape[2]
        cdef bint biased = known.b_ih != NULL
        memset(to, 0, sizeof(fr_weights))
        if n != 2 + 2 * biased + (known.w_hr != NULL):
            return False
        shape[0], shape[1] = rows, t.I
        if not look_at(weights[at], self.bits(), 2, shape, <const char **>&to.w_ih):
            return False
        shape[1] = t.P
        if not look_at(weights[at + 1], self.bits(), 2, shape, <const char **>&to.w_hh):
            return False
        if biased and not (look_at(weights[at + 2], self.bits(), 1, shape, <const char **>&to.b_ih)
                           and look_at(weights[at + 3], self.bits(), 1, shape, <const char **>&to.b_hh)):
            return False
        shape[0], shape[1] = t.P, t.H
        return known.w_hr == NULL or look_at(weights[at + n - 1], self.bits(), 2, shape, <const char **>&to.w_hr)

    cdef object tensor_of_state(self, object like, const Form *f, ptrdiff_t n, char **to):
        """(L, B, n) or (B, n), without B where x has none."""
        if self.stacked:
            return new_tensor(like, 2 if f.unbatched else 3, self.stacked, self.stacked if f.unbatched else f.B, n, to)
        return new_tensor(like, 1 if f.unbatched else 2, 0, f.B, n, to)

    cdef int update_c(self, fr_call *t, char *c, const void *source, ptrdiff_t bytes) except -1:
        """Inference updates c where it is returned."""
        copy_or_clear(c, source, bytes)
        self.update_in_place(t, c)
        return 0

    # --- inference

    def step(self, x, hx, list weights):
        """The new state of a cell, or None where the call is not plain."""
        cdef Form f
        cdef fr_call t
        cdef fr_weights w
        cdef char *c
        if not self.look_at_input(x, True, False, &f) or not self.look_at_states(hx, &f) or not self.look_at_weights(weights, 0, &w):
            return None
        self.begin(0, &f, &f.x, &t)
        t.w = w
        h_n = self.tensor_of_state(x, &f, self.P, <char **>&t.y.p)
        t.y.sb = self.P
        if self.has_c:
            c_n = self.tensor_of_state(x, &f, self.H, &c)
            self.update_c(&t, c, f.c0, f.B * self.H * self.size)
        try:
            self.run(0, &t, False)
        except MemoryError:
            return None
        return (h_n, c_n) if self.has_c else h_n

    def infer(self, x, hx, list weights, bint batch_first):
        """(y, state) of a layer, or None where the call is not plain."""
        cdef Form f
        if not self.look_at_input(x, False, batch_first, &f) or not self.look_at_states(hx, &f):
            return None
        try:
            return self.inferred(x, weights, &f)
        except MemoryError:
            return None

    cdef object inferred(self, object x, list weights, Form *f):
        cdef fr_call t
        cdef fr_weights w
        cdef fr_seq source = f.x, target, last
        cdef char *h
        cdef char *c = NULL
        cdef ptrdiff_t k, B = f.B, P = self.P, cell = B * self.H * self.size
        cdef Memory up = None, memory
        y = self.tensor_of_sequence(x, f, &last)
        h_n = self.tensor_of_state(x, f, P, &h)
        c_n = self.tensor_of_state(x, f, self.H, &c) if self.has_c else None
        for k in range(self.layers):
            memory, target = up, last
            if k + 1 < self.layers:
                up = Memory(f.T * B * P * self.size)
                target.p, target.st, target.sb = up.start, B * P, P
            if not self.look_at_weights(weights, k, &w):
                return None
            self.begin(k, f, &source, &t)
            t.w, t.y = w, target
            if self.has_c:
                self.update_c(&t, c + k * cell, t.c0, cell)
            self.run(k, &t, False)
            self.copy_last(f, &target, P, h + k * B * P * self.size)
            source = target
        return y, (h_n, c_n) if self.has_c else h_n

    cdef object tensor_of_sequence(self, object x, const Form *f, fr_seq *to):
        """y, in the form of x."""
        cdef ptrdiff_t P = self.P
        to.st = P if f.rows_first else f.B * P
        to.sb = f.T * P if f.rows_first else P
        if f.unbatched:
            return new_tensor(x, 2, 0, f.T, P, <char **>&to.p)
        if f.rows_first:
            return new_tensor(x, 3, f.B, f.T, P, <char **>&to.p)
        return new_tensor(x, 3, f.T, f.B, P, <char **>&to.p)

    # --- training: the steps of a cell

    def record_step(self, x, hx, list weights):
        """(state, what is kept for backward, one tensor) of a cell, or None where the call is not plain."""
        cdef Form f
        cdef fr_call t
        cdef fr_weights w
        cdef char *h
        cdef char *c
        cdef char *kept
        if not self.look_at_input(x, True, False, &f) or not self.look_at_states(hx, &f) or not self.look_at_weights(weights, 0, &w):
            return None
        cdef ptrdiff_t n = f.B * self.H
        self.begin(0, &f, &f.x, &t)
        t.w = w
        h_n = self.tensor_of_state(x, &f, self.P, &h)
        c_n = self.tensor_of_state(x, &f, self.H, &c) if self.has_c else None
        all_kept = new_tensor(x, 1, 0, 0, n * self.kept_blocks(), &kept)
        self.find_kept(&t, kept, h)
        try:
            self.run(0, &t, False)
        except MemoryError:
            return None
        if not self.saves:
            memcpy(h, t.y.p, n * self.size)
        if self.has_c:
            memcpy(c, t.saved.c.p, n * self.size)
        return (h_n, c_n) if self.has_c else h_n, all_kept

    cdef inline ptrdiff_t kept_blocks(self) noexcept:
        """What is kept of a step, in (B, H): the gates and c; or y, where no gates are."""
        return 4 + self.has_c if self.saves else 1

    cdef inline void find_kept(self, fr_call *t, char *kept, char *h) noexcept:
        """y is `h`, the step's own, if it need not be kept."""
        t.y.p, t.y.sb = h if self.saves else kept, self.P
        if self.saves:
            t.saved.gates.p, t.saved.gates.sb = kept, 4 * self.H
        if self.has_c:
            t.saved.c.p, t.saved.c.sb = kept + 4 * t.plan.B * self.H * self.size, self.H

    def step_back(self, x, hx, list weights, all_kept, dh, dc, bint need_x, TensorSums sums):
        """(dx or None, dh, dc or None) of the state before, or None where a tensor is not plain; the gradients of the weights go to
        `sums`, if they are wanted."""
        cdef Form f
        cdef fr_call t
        cdef fr_weights w
        cdef const char *d[2]
        cdef const char *kept
        cdef ptrdiff_t n
        if not self.look_at_input(x, True, False, &f) or not self.look_at_states(hx, &f) or not self.look_at_weights(weights, 0, &w):
            return None
        n = f.B * self.H * self.kept_blocks()
        if not look_at(all_kept, self.bits(), 1, &n, &kept):
            return None
        d[0] = d[1] = NULL
        if dh is not None and not self.look_at_state(dh, self.P, &f, &d[0]):
            return None
        if dc is not None and not self.look_at_state(dc, self.H, &f, &d[1]):
            return None
        self.begin(0, &f, &f.x, &t)
        t.w = w
        self.find_kept(&t, <char *>kept, <char *>kept)
        dx = None
        if need_x:
            dx = self.tensor_of_state(x, &f, t.I, <char **>&t.d.dx.p)
            t.d.dx.sb = t.I
        dh0 = self.tensor_of_state(x, &f, self.P, <char **>&t.d.dh)
        copy_or_clear(t.d.dh, d[0], f.B * self.P * self.size)
        dc0 = None
        if self.has_c:
            dc0 = self.tensor_of_state(x, &f, self.H, <char **>&t.d.dc)
            copy_or_clear(t.d.dc, d[1], f.B * self.H * self.size)
        if sums is not None:
            sums.next_step(&t)
        self.run(0, &t, True)
        if sums is not None:
            sums.keep(&t)
        return dx, dh0, dc0


cdef class TensorSums(WeightSums):
    """The gradients of a cell's parameters, summed over the steps that one backward pass goes through."""
    cdef list weights
    cdef list needed

    def __init__(self, TensorCalls calls, form, list weights, list needed):
        """needed: which of the weights want a gradient."""
        self.begin_sums(calls, form)
        self.weights, self.needed = weights, needed

    cdef object new_sums(self):
        cdef fr_weights *dw = &self.kept.d.dw
        cdef char *places[4]
        cdef Py_ssize_t k
        cdef const fr_call *t = &self.kept
        cdef ptrdiff_t rows = self.calls.gates * t.H
        sums = [None] * len(self.weights)
        for k in range(len(sums)):
            places[k] = NULL
            if self.needed[k]:
                sums[k] = new_tensor(self.weights[k], 2 if k < 2 else 1, 0, rows, t.P if k == 1 else t.I if k == 0 else rows, &places[k])
        memset(dw, 0, sizeof(fr_weights))
        dw.w_ih, dw.w_hh = places[0], places[1]
        if len(sums) == 4:
            dw.b_ih, dw.b_hh = places[2], places[3]
        return sums

    def gradients(self):
        """Of each weight a tensor, or None; None where no step went back."""
        self.flush()
        return self.sums
