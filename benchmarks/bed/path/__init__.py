"""What `job_path.py` stands on: a tracer in the product's processes, and what its notes say of one job."""
