"""Differentiating through training steps. Imports only TensorFlow and Keras."""
