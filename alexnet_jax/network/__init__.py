"""Networks as tables of layers: the tables, what each layer computes, and the summary."""
