"""Comparisons of whole trainings: plan.py says what is run, engines.py runs it, comparison.py and report.py judge it."""
