"""Derivatives of training steps: meta gradients and feedback."""
