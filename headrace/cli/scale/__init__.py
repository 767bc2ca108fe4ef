"""`headrace scale`: what the autoscaler sees, wants and expects."""
