"""Evaluation of a trained model: scores, intervals, degenerate answers, the gate, plots and reports."""
