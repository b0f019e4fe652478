# Steps of a cell in a hand-written loop, for training: weights packed once, and the weights' gradients of many steps in one product.

cdef class WeightSums:
    """The gradients of a cell's parameters, summed over the steps of a loop.

    A step's backward makes dgates, dx and the gradient of the state. Its operands of the weights' gradients are kept until there are as
    many as one sum takes, or until somebody asks for the gradients: as many sums as a layer's backward makes over the same steps."""
    cdef PlainCalls calls
    cdef Memory block  # of what is kept
    cdef fr_call kept  # x, y, c, gates and dgates of up to `capacity` steps of B rows; T of them are there
    cdef ptrdiff_t capacity
    cdef bint keeps_c, keeps_gates
    cdef object sums  # the gradients, None before there are any

    cdef int begin_sums(self, PlainCalls calls, form) except -1:
        """Of the cell with these calls, whose weights are where they are to stand in `sums`."""
        self.calls, self.kept = calls, calls.calls[0]
        self.kept.d.fresh = 1
        self.keeps_c = form.peephole
        self.keeps_gates = any([part.of_reset_h for part in form.hidden])
        return 0

    cdef object new_sums(self):
        """Memory for the gradients, and in kept.d.dw where each of them stands."""
        raise NotImplementedError

    cdef int next_step(self, fr_call *t) except -1:
        """A backward of one step is to write its dgates where they are kept."""
        if self.kept.plan.T == self.capacity:  # not after the step: an error here leaves it to be taken again
            self.flush()
        if t.plan.B != self.kept.plan.B:
            self.make_room(t.plan.B)
        t.d.dgates = <char *>self.kept.d.dgates + self.kept.plan.T * self.kept.plan.B * self.width() * self.calls.size
        t.d.make_dx = True
        return 0

    cdef ptrdiff_t width(self) noexcept:
        """Numbers of an item's dgates, with what makes their rows start apart in the cache."""
        cdef fr_sizes sizes
        cdef fr_call t = self.kept
        t.plan.T = 1
        self.calls.kernels().backward_sizes(&t, 1, &sizes)
        return sizes.dgates_width

    cdef int make_room(self, ptrdiff_t B) except -1:
        """For steps of so many rows."""
        self.flush()
        cdef fr_call t = self.kept
        cdef fr_sizes sizes
        t.plan.B, t.plan.T = B, 1
        self.calls.kernels().forward_sizes(&t, 1, &sizes)
        t.plan.T = 0
        cdef ptrdiff_t items = sizes.sum_steps * B, size = self.calls.size, H = t.H
        cdef ptrdiff_t row = t.I + t.P + self.width() + 2 * H * self.keeps_c + 4 * H * self.keeps_gates
        cdef Memory block = Memory(items * row * size)
        cdef char *p = <char *>block.start
        t.x.p, t.x.st, t.x.sb = p, B * t.I, t.I
        p += items * t.I * size
        t.y.p, t.y.st, t.y.sb = p, B * t.P, t.P
        p += items * t.P * size
        t.d.dgates = p
        p += items * self.width() * size
        t.saved.c.p, t.saved.c.st, t.saved.c.sb = p if self.keeps_c else NULL, 2 * B * H, H
        p += 2 * items * H * size * self.keeps_c
        t.saved.gates.p, t.saved.gates.st, t.saved.gates.sb = p if self.keeps_gates else NULL, 4 * B * H, 4 * H
        self.kept, self.block, self.capacity = t, block, sizes.sum_steps
        return 0

    cdef int keep(self, const fr_call *t) except -1:
        """Copy what the weights' gradients of this step need: nothing says that the caller's arrays stay as they are."""
        cdef fr_call *kept = &self.kept
        cdef ptrdiff_t size = self.calls.size, b, s = kept.plan.T, B = kept.plan.B
        cdef char *x = <char *>kept.x.p + s * kept.x.st * size
        for b in range(B):
            memcpy(x + b * t.I * size, <char *>t.x.p + b * t.x.sb * size, t.I * size)
        copy_or_clear(<char *>kept.y.p + s * kept.y.st * size, t.h0, B * t.P * size)
        if self.keeps_c:
            copy_or_clear(<char *>kept.saved.c.p + s * kept.saved.c.st * size, t.c0, B * t.H * size)
            memcpy(<char *>kept.saved.c.p + (s * kept.saved.c.st + B * t.H) * size, t.saved.c.p, B * t.H * size)
        if self.keeps_gates:
            memcpy(<char *>kept.saved.gates.p + s * kept.saved.gates.st * size, t.saved.gates.p, B * 4 * t.H * size)
        kept.plan.T += 1
        return 0

    cdef int flush(self) except -1:
        """Add the gradients of what is kept."""
        if self.kept.plan.T == 0:
            return 0
        cdef const fr_kernels *kernels = self.calls.kernels()
        if self.sums is None:
            self.sums = self.new_sums()
        cdef fr_call t = self.kept
        self.calls.run_kernel(kernels, kernels.accumulate, self.calls.counts[0], &t, True)
        self.kept.plan.T = self.kept.d.fresh = 0
        return 0


cdef class UnrolledCalls(WeightSums):
    """The plain calls of a cell over weights that stay, and the sum of its parameters' gradients."""
    cdef Memory back  # the weights as backward reads them

    def __init__(self, cell, form, weights, cnp.ndarray flat):
        """Of the weights (with packed) of a cell, which are parts of a vector."""
        self.begin_sums(PlainCalls(cell, form, [weights], flat, False), form)
        cdef fr_call t = self.calls.calls[0]
        cdef fr_sizes sizes
        cdef fr_team alone
        t.plan.B = t.schedule.chunk = t.range.first = 1
        self.calls.kernels().backward_sizes(&t, 1, &sizes)
        self.back = Memory(sizes.packed_bytes)
        cdef Memory work = Memory(sizes.work_bytes)
        t.memory.packed, t.memory.work, t.d.dx.p = self.back.start, work.start, self.back.start  # dx: its weights are packed, too
        memset(&alone, 0, sizeof(alone))
        alone.n = 1
        self.calls.kernels().backward(&t, 0, &alone)  # no steps: it packs

    def record(self, x, state):
        """(state, Recorded) of one step, or None where the arguments are not plain."""
        done = self.calls.recorded(x, state, True, False)
        return None if done is None else done[1:]

    def backward(self, Recorded tape not None, dstate):
        """(dx, dstate of the state before), or None where dstate is not plain."""
        cdef const char *dh
        cdef const char *dc
        if not tape.read_dstate(dstate, &dh, &dc) or (dh == NULL and dc == NULL):
            return None
        cdef PlainCalls calls = self.calls
        cdef fr_call t
        cdef const fr_kernels *kernels = calls.kernels()
        tape.layer(0, &t)
        dx = tape.step_dx(&t.d.dx)
        dh0 = calls.new_zeros(&tape.form, calls.P, dh)
        dc0 = calls.new_zeros(&tape.form, calls.H, dc) if calls.has_c else None
        t.d.dh, t.d.dc = data(dh0), data(dc0)
        self.next_step(&t)
        t.memory.packed, t.memory.back_ready = self.back.start, True
        calls.run_kernel(kernels, kernels.backward, calls.counts[0], &t, True)
        self.keep(&t)
        return dx, (dh0, dc0) if calls.has_c else dh0

    def gradients(self):
        """The parameters' gradients of all steps so far, one vector that goes on changing."""
        self.flush()
        if self.sums is None:
            self.sums = self.new_sums()
        if self.kept.d.fresh:
            memset(data(self.sums), 0, cnp.PyArray_NBYTES(<cnp.ndarray>self.sums))
            self.kept.d.fresh = 0
        return self.sums

    cdef object new_sums(self):
        flat = new_like(self.calls.flat)
        moved(&self.kept.d.dw, &self.kept.w, <char *>data(flat) - <char *>data(self.calls.flat))
        return flat


cdef inline void copy_or_clear(void *to, const void *source, ptrdiff_t bytes) noexcept:
    if source == NULL:
        memset(to, 0, bytes)
    else:
        memcpy(to, source, bytes)
