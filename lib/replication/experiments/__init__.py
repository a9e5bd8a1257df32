"""One module a wing: its experiments and the metrics of its claims."""
