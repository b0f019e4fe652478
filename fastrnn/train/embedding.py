"""Vectors of words, characters, or whatever else is numbered."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from .. import _core
from .._api import checks
from .._api.parameters import Module, Shapes
from .._api.tape import Gradients, OneUse
from .._api.tokens import are_tokens, within

Array = NDArray[Any]


class Embedding(Module):
    """y = W[index], with the name, shape and initial values of torch.nn.Embedding.

    A layer that is to read one-hot rows needs none: it takes the integers themselves, and picks columns of its own W_ih.

    Parameters
    ----------
    num_embeddings : int
        V, how many vectors there are.
    embedding_dim : int
        D, the numbers of a vector.
    padding_index : int, optional
        From 0 to V - 1: this vector is 0 at the start, and its gradient is always 0, so that an optimiser which moves nothing
        without a gradient leaves it there.
    dtype : dtype, default float32
        float32 or float64.
    rng : int or numpy.random.Generator, optional
        The source of the initial values, N(0, 1), or its seed.

    Attributes
    ----------
    params : Parameters
        {"weight": W (V, D)}: an array that may be written to; the next call sees it.
    flat : array
        The same numbers as one contiguous vector, for optimisers.

    Raises
    ------
    TypeError, ValueError
        A wrong argument; the message names it.
    MemoryError

    Examples
    --------
    >>> import numpy as np
    >>> import fastrnn
    >>> from fastrnn.train import Embedding
    >>> embedding, layer = Embedding(10, 3, rng=0), fastrnn.GRU(3, 4, rng=1)
    >>> words = np.array([[1, 7], [2, 2], [9, 0]])  # T=3 B=2
    >>> x, embedding_tape = embedding.forward(words)  # (T, B, 3)
    >>> y, h_n, tape = layer.forward(x)
    >>> grads = tape.backward(y - 1)  # of half the sum of (y - 1)**2
    >>> embedding_grads = embedding_tape.backward(grads.x)
    >>> embedding_grads.params["weight"].any(axis=1)
    array([ True,  True,  True, False, False, False, False,  True, False,
            True])
    """

    _sizes = "num_embeddings, embedding_dim"

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        *,
        padding_index: int | None = None,
        dtype: DTypeLike = np.float32,
        rng: Any = None,
    ) -> None:
        V = self.num_embeddings = checks.size("num_embeddings", num_embeddings)
        self.embedding_dim = checks.size("embedding_dim", embedding_dim)
        self.padding_index = None if padding_index is None else checks.integer("padding_index", padding_index, 0, V - 1)
        shapes: Shapes = {"weight": (V, self.embedding_dim)}
        self._set_up([shapes], [""], dtype, rng)

    def __call__(self, index: NDArray[Any]) -> Array:
        """Inference: nothing is kept for backward.

        Parameters
        ----------
        index : integers (...)
            As in `forward`.

        Returns
        -------
        y : array (..., D)

        Raises
        ------
        TypeError, ValueError
            As in `forward`.

        Examples
        --------
        >>> import numpy as np
        >>> from fastrnn.train import Embedding
        >>> Embedding(10, 3, rng=0)(np.array([[1, 7], [2, 2]])).shape
        (2, 2, 3)
        """
        return self._pick(self._check(index))

    def forward(self, index: NDArray[Any]) -> tuple[Array, EmbeddingTape]:
        """Training: keeps a copy of the index.

        Parameters
        ----------
        index : integers (...)
            A NumPy array of any shape, such as (T, B), of numbers from 0 to V - 1, at padding too.

        Returns
        -------
        y : array (..., D)
            The vectors of these numbers.
        tape : EmbeddingTape
            For one tape.backward(dy).

        Raises
        ------
        TypeError
            No array of integers; booleans are none.
        ValueError
            A number out of range.

        Examples
        --------
        >>> import numpy as np
        >>> from fastrnn.train import Embedding
        >>> y, tape = Embedding(10, 3, rng=0).forward(np.array([1, 7, 1]))
        >>> y.shape, np.array_equal(y[0], y[2])
        ((3, 3), True)
        """
        index = self._check(index)
        return self._pick(index), EmbeddingTape(self, index)

    def _check(self, index: Any) -> NDArray[np.intp]:
        if not are_tokens(index):
            got = f"an array of {index.dtype}" if type(index) is np.ndarray else type(index).__name__
            raise TypeError(f"index: expected a NumPy array of integers, got {got}")
        return within("index", index, self.num_embeddings, "num_embeddings")

    def _pick(self, index: NDArray[np.intp]) -> Array:
        try:
            return self.params["weight"].take(index, axis=0)
        except (MemoryError, ValueError) as error:  # ValueError: not even countable
            raise checks.out_of_memory("index", error) from None

    def _initialise(self) -> None:
        self.flat[:] = self.rng.standard_normal(self.flat.shape)
        if self.padding_index is not None:
            self.params["weight"][self.padding_index] = 0


class EmbeddingTape(OneUse):
    """The tape of Embedding.forward. It can be used once."""

    def __init__(self, layer: Embedding, index: NDArray[np.intp]) -> None:
        super().__init__()
        self._layer, self._index = layer, index
        self._used = False

    def backward(self, dy: Array) -> Gradients:
        """Gradients of sum(y * dy): to each vector of W the dy of all places that have picked it, one after the other.

        Parameters
        ----------
        dy : array (..., D)
            As y.

        Returns
        -------
        grads : Gradients
            grads.params["weight"] (V, D); grads.flat, the same as one vector; grads.x is None.

        Raises
        ------
        RuntimeError
            At the second call, or while another thread uses this tape.
        TypeError, ValueError
            A wrong `dy`.
        MemoryError

        Examples
        --------
        >>> import numpy as np
        >>> from fastrnn.train import Embedding
        >>> y, tape = Embedding(4, 2, rng=0).forward(np.array([1, 3, 1]))
        >>> tape.backward(np.ones((3, 2), np.float32)).params["weight"]
        array([[0., 0.],
               [2., 2.],
               [0., 0.],
               [1., 1.]], dtype=float32)
        """
        with self._in_use:
            return self._backward(dy)

    def _backward(self, dy: Array) -> Gradients:
        if self._used:
            raise RuntimeError("tape.backward: this tape has been used; call forward again for a new one")
        layer, index = self._layer, self._index
        dy = checks.shaped("dy", dy, layer.dtype, "(..., D)", (*index.shape, layer.embedding_dim))
        self._used = True
        into = layer._zeros()
        _core.add_rows(into["weight"], index, dy)
        if layer.padding_index is not None:
            into["weight"][layer.padding_index] = 0
        return Gradients(x=None, params=into, flat=into.flat)
