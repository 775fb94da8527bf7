"""What the trials of a sweep show: the comparisons of its arms, and the report with its tables and pictures."""
