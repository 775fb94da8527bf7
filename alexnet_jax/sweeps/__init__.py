"""Comparisons of whole trainings: plan.py says what is run, trials.py runs one training, analysis/ judges the results."""
