"""What a large cluster does to the two servers besides its jobs, each thing by itself."""
