"""NumPy code that people have, on the kernels: change the import, and it runs as before, at compiled speed.

    cs231n      Stanford CS231n, assignment 3: rnn_layers.py
    karpathy    min-char-rnn.py, and the batched LSTM
    coursera    the Deep Learning Specialization, course 5, week 1
    numpy_ml    numpy_ml.neural_nets.layers: RNNCell, LSTMCell, RNN, LSTM
    madmom      madmom.ml.nn.layers, for inference
    autograd    the examples rnn.py and lstm.py of HIPS autograd (needs the package autograd)

Names, signatures, shapes and return values are the originals'. Where all arrays are float32 so are the results; integers and what
is mixed count as float64. Functions of a whole sequence run on the kernels. Functions of a single step are a few lines of NumPy:
they read every weight once, which is all that a step can do, and the kernels would have to rearrange the weights first.
"""
