"""What a trained network looks like from inside, after section 6.1 of the paper ("Qualitative Evaluations")."""
