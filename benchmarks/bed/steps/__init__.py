"""The steps of a job's way, each by itself, and what each takes of the processors. Runs the product in this process."""
