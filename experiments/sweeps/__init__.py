"""Many runs at once: a file of settings and lists of settings becomes cells, workers run them, tables compare them."""
