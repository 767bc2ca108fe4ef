"""What the scripts stand on: running stacks, load clients, data, faults. It does not know what is measured."""
