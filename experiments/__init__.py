"""The product for experimenters: the command line, sweeps, figures, the report, the tour."""
